"""The matrix products of off-policy updates, reward fits and relabellings, alone.

Work is a list of passes: a network meets some rows, and then its weights learn, or
its inputs have a gradient, or neither. Only what the mathematics needs is counted:
critics that lead the actor learn nothing and hand on the gradient of actions alone,
and targets are never differentiated.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import products

# How products can be written; XLA's CPU kernels like one or the other better.
WAYS = ('products', 'products, transposed', 'products, columns')
_BATCHES = 2  # That iterations take turns with: what never changes is hoisted.


class Pass(NamedTuple):
  """One way of a batch through a network, and back where needed.

  Attributes:
    sizes: widths of every layer, input and output included.
    rows: B, of the batch.
    copies: networks of this kind, each with weights of its own.
    learns: whether the weights' gradient is needed.
    input_columns: how many columns of the inputs need their gradient.
  """

  sizes: tuple[int, ...]
  rows: int
  copies: int = 1
  learns: bool = False
  input_columns: int = 0

  @property
  def flops(self) -> int:
    """Floating-point operations; a product [m, k] x [k, n] takes 2 m k n."""
    layers = list(itertools.pairwise(self.sizes))
    forward = sum(n * m for n, m in layers)
    inner = forward - layers[0][0] * layers[0][1]
    numbers = forward * (1 + self.learns)
    if self.learns or self.input_columns:
      numbers += inner + self.input_columns * layers[0][1]
    return 2 * self.rows * self.copies * numbers


def update_passes(
  agent: str,
  observation_size: int,
  action_size: int,
  hidden: Sequence[int],
  batch_size: int,
) -> list[Pass]:
  """One update of SAC (twin critics, mean and spread) or DDPG (one critic, mean)."""
  critics, outputs = (2, 2 * action_size) if agent == 'sac' else (1, action_size)
  actor = observation_size, *hidden, outputs
  critic = observation_size + action_size, *hidden, 1
  return [
    # The value of what follows: an action for it, and what target critics say.
    Pass(actor, batch_size),
    Pass(critic, batch_size, critics),
    # The critics learn.
    Pass(critic, batch_size, critics, learns=True),
    # The actor learns, led by the critics through the action.
    Pass(actor, batch_size, learns=True),
    Pass(critic, batch_size, critics, input_columns=action_size),
  ]


def reward_passes(
  input_size: int, hidden: Sequence[int], members: int, rows: int, learns: bool
) -> list[Pass]:
  """The reward ensemble on some rows, learning from them or not."""
  return [Pass((input_size, *hidden, 1), rows, members, learns)]


def count_flops(passes: Sequence[Pass]) -> int:
  """Floating-point operations of all passes."""
  return sum(each.flops for each in passes)


def column_products(
  weights: list[jax.Array], inputs: jax.Array, learns: bool, input_columns: int
) -> list[jax.Array]:
  """As `products.gradient_products`, activations kept [width, rows].

  A gradient of weights then contracts the contiguous axis of both sides.
  """
  layers_in, x = [], inputs.T
  for weight in weights:
    layers_in.append(x)
    x = jnp.einsum('nm,nr->mr', weight, x)
  if not learns and not input_columns:
    return [x]
  grads, cotangent = [], x
  for layer in reversed(range(len(weights))):
    if learns:
      grads.append(jnp.einsum('nr,mr->nm', layers_in[layer], cotangent))
    if layer:
      cotangent = weights[layer] @ cotangent
  if not input_columns:
    return grads[::-1]
  return [*grads[::-1], weights[0][-input_columns:] @ cotangent]


def make_loop(passes: Sequence[Pass], way: str) -> Callable[[int], object]:
  """A compiled loop over all passes that does nothing but multiply.

  Args:
    passes: what one iteration holds.
    way: of `WAYS`.

  Returns:
    A function that runs so many iterations and waits; the first call compiles.
  """
  rng = np.random.default_rng(0)

  def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)

  def multiply(each: Pass, weights: list[jax.Array], x: jax.Array) -> list[jax.Array]:
    if way == WAYS[2]:
      return column_products(weights, x, each.learns, each.input_columns)
    return products.gradient_products(
      weights,
      x,
      way == WAYS[1],
      weight_gradients=each.learns,
      input_columns=each.input_columns,
    )

  # Of unit gain: numbers stay normal (denormal ones multiply slowly).
  weights = jax.device_put(
    [
      [
        [normal(n, m) / np.float32(n**0.5) for n, m in itertools.pairwise(each.sizes)]
        for _ in range(each.copies)
      ]
      for each in passes
    ]
  )
  inputs = jax.device_put(
    [normal(_BATCHES, each.rows, each.sizes[0]) for each in passes]
  )

  def iterate(weights: list, inputs: list, i: jax.Array | int) -> list:
    now = [
      jax.lax.dynamic_index_in_dim(x, i % _BATCHES, keepdims=False) for x in inputs
    ]
    return [
      [multiply(each, copy, x) for copy in copies]
      for each, copies, x in zip(passes, weights, now, strict=True)
    ]

  @jax.jit
  def loop(weights: list, inputs: list, iterations: jax.Array) -> list:
    shapes = jax.eval_shape(iterate, weights, inputs, 0)
    # Each iteration writes over the last one's results: nothing is added, and
    # nothing can be left out.
    return jax.lax.fori_loop(
      0,
      iterations,
      lambda i, _: iterate(weights, inputs, i),
      jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
    )

  return lambda n: jax.block_until_ready(loop(weights, inputs, jnp.int32(n)))
