"""The matrix products of PPO's gradient steps, alone, at the rate that XLA reaches.

No way of training these networks on this machine with this compiler is faster than
its products. Together with the physics they bound the speed of PPO, see `bound`.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from rlfb_jax.agents.ppo import PPOOptions

Weights = list[list[jax.Array]]  # A list for each network, a matrix for each layer.


@dataclasses.dataclass(frozen=True)
class Products:
  """A compiled loop of gradient steps that does nothing but multiply.

  Attributes:
    run: runs it once and waits.
    gradient_steps: in one run.
    flops: in one gradient step.
  """

  run: Callable[[], object]
  gradient_steps: int
  flops: int


def network_sizes(
  observation_size: int, action_size: int, options: PPOOptions
) -> list[list[int]]:
  """Widths of every layer of actor and critic, input and output included."""
  hidden = [options.hidden_size] * options.hidden_layers
  return [[observation_size, *hidden, out] for out in (action_size, 1)]


class Pass(NamedTuple):
  """One network, forwards once and perhaps backwards.

  Attributes:
    sizes: widths from input to output.
    weights: whether the gradient of the weights is needed.
    inputs: of how many of the last inputs a gradient is needed; not with `weights`.
  """

  sizes: tuple[int, ...]
  weights: bool = False
  inputs: int = 0


def count_flops(passes: Sequence[Pass], rows: int) -> int:
  """Floating-point operations; a product [m, k] x [k, n] takes 2 m k n.

  Every layer multiplies forwards, into its weights' gradient where that is needed,
  and into its inputs' gradient where a gradient is needed below it.

  Args:
    passes: networks, and what is needed of each.
    rows: inputs of each.
  """
  total = 0
  for one in passes:
    for layer, (width, out) in enumerate(itertools.pairwise(one.sizes)):
      columns = width * (1 + one.weights)
      if layer:
        columns += width * (one.weights or one.inputs > 0)
      else:
        columns += one.inputs
      total += 2 * rows * columns * out
  return total


def random_weights(key: jax.Array, sizes: Sequence[int]) -> list[jax.Array]:
  """A matrix [in, out] for each layer, of unit gain.

  So numbers stay normal; denormal ones multiply slowly.

  Args:
    key: randomness.
    sizes: widths from input to output.
  """
  return [
    jax.random.normal(jax.random.fold_in(key, i), (width, out)) / width**0.5
    for i, (width, out) in enumerate(itertools.pairwise(sizes))
  ]


def gradient_products(
  weights: list[jax.Array], inputs: jax.Array, transpose_first: bool
) -> list[jax.Array]:
  """All products of one network's gradient step, with nothing between them.

  The activations are left out and the outputs stand for their own gradient, so
  that the products have the shapes and the dependencies of training.

  Args:
    weights: [in, out] for each layer.
    inputs: [B, in of the first].
    transpose_first: write the transposed operand of a weights' gradient to memory
      before it is multiplied; XLA's fast kernels on CPU take only such ones.

  Returns:
    For each layer something of the shape of its weights' gradient.
  """
  layers_in, x = [], inputs
  for weight in weights:
    layers_in.append(x)
    x = x @ weight
  grads, cotangent = [], x
  for layer in reversed(range(len(weights))):
    transposed = layers_in[layer].T
    if transpose_first:
      transposed = jax.lax.optimization_barrier(transposed)
    grads.append(transposed @ cotangent)
    if layer:
      cotangent = cotangent @ weights[layer].T
  return grads[::-1]


def make_products(
  observation_size: int,
  action_size: int,
  options: PPOOptions,
  gradient_steps: int,
  transpose_first: bool = False,
) -> Products:
  """Makes the loop for an agent's own shapes; the first run compiles.

  Args:
    observation_size: ds.
    action_size: da.
    options: of the agent: minibatch and networks.
    gradient_steps: how many in one run.
    transpose_first: see `gradient_products`.
  """
  networks = network_sizes(observation_size, action_size, options)
  keys = jax.random.split(jax.random.key(0), len(networks) + 1)

  @jax.jit
  def loop(weights: Weights, minibatches: jax.Array) -> Weights:
    def step(_: Weights, inputs: jax.Array) -> tuple[Weights, None]:
      return [gradient_products(w, inputs, transpose_first) for w in weights], None

    # Each step writes its gradients over the last one's: nothing is added, and
    # nothing can be left out.
    return jax.lax.scan(step, weights, minibatches)[0]

  weights = [
    random_weights(key, sizes) for key, sizes in zip(keys[1:], networks, strict=True)
  ]
  minibatches = jax.random.normal(
    keys[0], (gradient_steps, options.minibatch_size, observation_size)
  )
  return Products(
    run=lambda: jax.block_until_ready(loop(weights, minibatches)),
    gradient_steps=gradient_steps,
    flops=count_flops(
      [Pass(tuple(sizes), weights=True) for sizes in networks], options.minibatch_size
    ),
  )


def seconds_per_env_step(gradient_step_seconds: float, options: PPOOptions) -> float:
  """What the products of all epochs cost one environment step."""
  steps = options.num_epochs * options.minibatches_per_epoch
  return gradient_step_seconds * steps / options.steps_per_iteration


def bound(physics_steps_per_second: float, products_per_env_step: float) -> float:
  """Environment steps per second where physics and products take turns.

  Args:
    physics_steps_per_second: the engine's own, on all cores.
    products_per_env_step: seconds, on all cores.
  """
  return 1.0 / (1.0 / physics_steps_per_second + products_per_env_step)
