"""The matrix products of PPO's gradient steps, alone, at the rate that XLA reaches.

No way of training these networks on this machine with this compiler is faster than
its products. Together with the physics they bound the speed of PPO, see `bound`.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

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


def count_flops(networks: Sequence[Sequence[int]], batch_size: int) -> int:
  """Floating-point operations of one gradient step's products.

  A layer multiplies forwards, into its weights' gradient and, but for the first
  one, into its inputs' gradient; a product [m, k] x [k, n] takes 2 m k n.
  """
  total = 0
  for sizes in networks:
    for layer, (rows, columns) in enumerate(itertools.pairwise(sizes)):
      total += (2 if layer == 0 else 3) * 2 * batch_size * rows * columns
  return total


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
    [
      # Of unit gain: numbers stay normal (denormal ones multiply slowly).
      jax.random.normal(jax.random.fold_in(key, i), (rows, columns)) / rows**0.5
      for i, (rows, columns) in enumerate(itertools.pairwise(sizes))
    ]
    for key, sizes in zip(keys[1:], networks, strict=True)
  ]
  minibatches = jax.random.normal(
    keys[0], (gradient_steps, options.minibatch_size, observation_size)
  )
  return Products(
    run=lambda: jax.block_until_ready(loop(weights, minibatches)),
    gradient_steps=gradient_steps,
    flops=count_flops(networks, options.minibatch_size),
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
