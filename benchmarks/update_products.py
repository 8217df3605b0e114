"""The matrix products of an off-policy update or a reward's fit, alone.

No update of these networks with this compiler on this machine is faster than its
products, so that their time over the update's is a share that cannot exceed one, but
for noise. Each network is run as a `Pass`: forwards, and backwards only as far as a
gradient is needed.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import products
from products import Pass

# Batches that take turns, so that no product can be hoisted out of the loop.
BATCHES = 4


def critic_and_actor(
  observation_size: int, action_size: int, hidden: Sequence[int], outputs: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Widths of one critic and of the actor."""
  critic = observation_size + action_size, *hidden, 1
  return critic, (observation_size, *hidden, outputs)


def sac_update(
  observation_size: int, action_size: int, hidden: Sequence[int]
) -> list[Pass]:
  """Passes of one update of SAC, in order.

  Targets: the actor and both target critics forwards. Critics: both, with the
  gradient of their weights. Actor: itself with that of its weights, through both
  critics, of which only the actions' gradient is needed.
  """
  sizes = observation_size, action_size, hidden
  critic, actor = critic_and_actor(*sizes, outputs=2 * action_size)
  return [
    Pass(actor),
    *[Pass(critic)] * 2,
    *[Pass(critic, weights=True)] * 2,
    *[Pass(critic, inputs=action_size)] * 2,
    Pass(actor, weights=True),
  ]


def ddpg_update(
  observation_size: int, action_size: int, hidden: Sequence[int]
) -> list[Pass]:
  """The same of DDPG: one critic, and an actor that has a target too."""
  sizes = observation_size, action_size, hidden
  critic, actor = critic_and_actor(*sizes, outputs=action_size)
  return [
    Pass(actor),
    Pass(critic),
    Pass(critic, weights=True),
    Pass(critic, inputs=action_size),
    Pass(actor, weights=True),
  ]


def run_pass(one: Pass, weights: list[jax.Array], inputs: jax.Array) -> list[jax.Array]:
  """The products of a pass, without what comes between them.

  Args:
    one: what is needed.
    weights: [in, out] of each layer.
    inputs: [R, in of the first].

  Returns:
    The gradients that are needed, or the outputs where none is; as in
    `products.gradient_products` outputs stand for their own gradient.
  """
  if one.weights:
    return products.gradient_products(weights, inputs, transpose_first=True)
  x = inputs
  for weight in weights:
    x = x @ weight
  if one.inputs:
    for weight in reversed(weights[1:]):
      x = x @ weight.T
    x = x @ weights[0][-one.inputs :].T
  return [x]


def make_products(passes: Sequence[Pass], rows: int) -> Callable[[int], object]:
  """A compiled loop over nothing but the products; the first run compiles.

  Args:
    passes: of one update.
    rows: R, inputs of each.

  Returns:
    `n -> result`: multiplies for n updates and waits.
  """
  keys = jax.random.split(jax.random.key(0), len(passes) + 1)
  weights = [
    products.random_weights(key, one.sizes)
    for key, one in zip(keys[1:], passes, strict=True)
  ]
  widths = sorted({one.sizes[0] for one in passes})
  batches = {
    width: jax.random.normal(jax.random.fold_in(keys[0], width), (BATCHES, rows, width))
    for width in widths
  }

  def multiply(
    weights: list[list[jax.Array]], batches: dict[int, jax.Array], i: jax.Array
  ) -> list[list[jax.Array]]:
    return [
      run_pass(one, w, batches[one.sizes[0]][i % BATCHES])
      for one, w in zip(passes, weights, strict=True)
    ]

  @jax.jit
  def loop(
    weights: list[list[jax.Array]], batches: dict[int, jax.Array], count: jax.Array
  ) -> list[list[jax.Array]]:
    shapes = jax.eval_shape(multiply, weights, batches, jnp.int32(0))
    start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    # Each turn writes over the last one's results: nothing is added.
    return jax.lax.fori_loop(
      0, count, lambda i, _: multiply(weights, batches, i), start
    )

  return lambda n: jax.block_until_ready(loop(weights, batches, jnp.int32(n)))
