"""One member of the reward ensemble: a multi-layer perceptron fast on CPU.

Where it is trained, activations are kept feature-major, [width, rows]. Then every
product of the forward and the backward pass is one that XLA's CPU matrix product takes
as it is: a weight gradient, with rows as the contracted axis, contracts the contiguous
axis of both sides. In the usual row-major layout that product runs at two thirds of the
rate. Where it only predicts there is no such gradient, and rows save a fifth of the
time: nothing is transposed, and biases are added along the contiguous axis.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import jax
import jax.numpy as jnp

from rlfb_jax.core.networks import MLP, Layer, apply_mlp
from rlfb_jax.core.types import Activation, Key

SLOPE = 0.01  # of LeakyReLU below zero.
HEADS: Mapping[str, Activation] = MappingProxyType(
  {'tanh': jnp.tanh, 'sigmoid': jax.nn.sigmoid, 'relu': jax.nn.relu}
)


@jax.custom_jvp
def leaky_relu(x: jax.Array) -> jax.Array:
  """max(x, 0.01 x); its derivative is read off the output.

  So the backward pass needs the activations only, not what went into them.
  """
  return jnp.maximum(x, SLOPE * x)


@leaky_relu.defjvp
def _leaky_relu_jvp(
  primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
  out = leaky_relu(primals[0])
  return out, jnp.where(out > 0, 1.0, SLOPE) * tangents[0]


def init_member(key: Key, sizes: Sequence[int]) -> MLP:
  """PyTorch's default `Linear` initialisation: U(+-1/sqrt(fan_in)), biases too.

  Args:
    key: randomness, consumed.
    sizes: widths from input to output.
  """
  layers = []
  for layer_key, n, m in zip(
    jax.random.split(key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True
  ):
    kernel_key, bias_key = jax.random.split(layer_key)
    bound = n**-0.5
    layers.append(
      Layer(
        jax.random.uniform(kernel_key, (n, m), jnp.float32, -bound, bound),
        jax.random.uniform(bias_key, (m,), jnp.float32, -bound, bound),
      )
    )
  return tuple(layers)


def predict_member(params: MLP, inputs: jax.Array, head: str = 'tanh') -> jax.Array:
  """As `apply_member` but for rounding, faster where no weight is trained."""
  return HEADS[head](apply_mlp(params, inputs, leaky_relu)[:, 0])


def apply_member(params: MLP, inputs: jax.Array, head: str = 'tanh') -> jax.Array:
  """Predicted reward of each row.

  Args:
    params: one member.
    inputs: whitened observation and action in a row, [R, ds + da].
    head: one of `HEADS`, on the last layer.

  Returns:
    [R], in (-1, 1) with 'tanh', (0, 1) with 'sigmoid', [0, inf) with 'relu'.
  """
  first, *inner, last = params
  hidden = jnp.einsum('de,rd->er', first.kernel, inputs)
  hidden = leaky_relu(hidden + first.bias[:, None])
  for layer in inner:
    hidden = jnp.einsum('de,dr->er', layer.kernel, hidden)
    hidden = leaky_relu(hidden + layer.bias[:, None])
  logits = jnp.einsum('d,dr->r', last.kernel[:, 0], hidden) + last.bias[0]
  return HEADS[head](logits)
