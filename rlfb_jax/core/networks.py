"""Multi-layer perceptrons as plain pytrees.

A network is a tuple of layers, `Layer(kernel, bias)`, so that an ensemble is the
same tuple with one more leading axis, and an export is a list of arrays.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Activation, Key

Initializer = Callable[..., jax.Array]


class Layer(NamedTuple):
  """An affine map: `kernel` [in, out], `bias` [out]."""

  kernel: jax.Array
  bias: jax.Array


MLP = tuple[Layer, ...]


def orthogonal_mlp(key: Key, sizes: Sequence[int], hidden: float, last: float) -> MLP:
  """Orthogonal weights, zero biases (Stable-Baselines3's PPO, `policies.py`).

  Args:
    key: randomness, consumed.
    sizes: widths from input to output.
    hidden: gain of the hidden layers.
    last: gain of the output layer.
  """
  keys = jax.random.split(key, len(sizes) - 1)
  gains = [hidden] * (len(sizes) - 2) + [last]
  return tuple(
    Layer(jax.nn.initializers.orthogonal(gain)(k, (n, m), jnp.float32), jnp.zeros(m))
    for k, gain, n, m in zip(keys, gains, sizes[:-1], sizes[1:], strict=True)
  )


def apply_mlp(params: MLP, inputs: jax.Array, activation: Activation) -> jax.Array:
  """Runs the network on inputs [..., sizes[0]]; the output layer stays linear."""
  hidden = inputs
  for layer in params[:-1]:
    hidden = activation(hidden @ layer.kernel + layer.bias)
  return hidden @ params[-1].kernel + params[-1].bias
