"""A replay buffer inside the graph: a ring of transitions, written in place.

A transition is one row of one matrix, so that drawing a batch is a single gather.
What the agent is paid lives beside it in columns of its own: the learned reward
changes its mind, and then only the columns are rewritten.
"""

from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key

# Rows that are relabelled together: their activations stay in the cache.
CHUNK_ROWS = 4096


class Replay(flax.struct.PyTreeNode):
  """The ring. C is the capacity.

  Attributes:
    rows: packed transitions, [C, sum of widths] float32.
    rewards: what stands for each row's reward: what each member of an ensemble says
      of it, or the true one, [C, K] float32.
    head: where the next transition goes, [] int32.
    filled: rows held, [] int32.
    widths: widths of the fields that a row packs.
  """

  rows: jax.Array
  rewards: jax.Array
  head: jax.Array
  filled: jax.Array
  widths: tuple[int, ...] = flax.struct.field(pytree_node=False)

  @property
  def capacity(self) -> int:
    """Rows that fit, C."""
    return int(self.rows.shape[0])


def memory_bytes(capacity: int, widths: Sequence[int], reward_width: int) -> int:
  """Bytes the ring needs per seed, so that they can be reported before allocation."""
  return 4 * capacity * (sum(widths) + reward_width)


def init_replay(capacity: int, widths: Sequence[int], reward_width: int) -> Replay:
  """An empty ring.

  Args:
    capacity: C.
    widths: numbers in each field of a transition.
    reward_width: K, columns that stand for the reward.
  """
  if capacity < 1 or reward_width < 1:
    raise ValueError(
      f'A replay buffer of capacity={capacity} rows with {reward_width} reward columns'
      ' cannot hold anything; both must be at least 1.'
    )
  return Replay(
    rows=jnp.zeros((capacity, sum(widths)), jnp.float32),
    rewards=jnp.zeros((capacity, reward_width), jnp.float32),
    head=jnp.zeros((), jnp.int32),
    filled=jnp.zeros((), jnp.int32),
    widths=tuple(widths),
  )


def insert(replay: Replay, fields: Sequence[jax.Array], rewards: jax.Array) -> Replay:
  """Writes N transitions over the oldest rows.

  Args:
    replay: whose capacity is a multiple of N; every insertion brings N.
    fields: each [N, width], in the order of `replay.widths`; [N] for a width of 1.
    rewards: [N, K].

  Raises:
    ValueError: at trace time, if the shapes do not fit.
  """
  new = jnp.concatenate(
    [f.reshape(f.shape[0], -1).astype(jnp.float32) for f in fields], axis=1
  )
  count = new.shape[0]
  held = replay.rewards
  if new.shape[1] != replay.rows.shape[1] or rewards.shape != (count, held.shape[1]):
    raise ValueError(
      f'Rows {new.shape} with rewards {rewards.shape} do not fit a replay buffer of'
      f' rows {replay.rows.shape} and rewards {held.shape}.'
    )
  if replay.capacity % count:
    raise ValueError(
      f'A replay buffer of {replay.capacity} rows must hold a whole number of'
      f' insertions of {count}; try {-(-replay.capacity // count) * count}.'
    )
  column = jnp.zeros((), jnp.int32)
  return replay.replace(
    rows=jax.lax.dynamic_update_slice(replay.rows, new, (replay.head, column)),
    rewards=jax.lax.dynamic_update_slice(held, rewards, (replay.head, column)),
    head=(replay.head + count) % replay.capacity,
    filled=jnp.minimum(replay.filled + count, replay.capacity),
  )


def draw(
  key: Key, replay: Replay, shape: tuple[int, ...], newest: int | None = None
) -> jax.Array:
  """Indices of rows, uniform with replacement, int32 of the given shape.

  Args:
    key: randomness, consumed.
    replay: not empty.
    shape: how many.
    newest: draw only from so many of the newest rows; None for all.
  """
  span = replay.filled if newest is None else jnp.minimum(replay.filled, newest)
  age = jax.random.randint(key, shape, 0, jnp.maximum(span, 1))
  return (replay.head - 1 - age) % replay.capacity


def gather(replay: Replay, index: jax.Array) -> tuple[list[jax.Array], jax.Array]:
  """The fields of rows, each [..., width], and their rewards, [..., K]."""
  return unpack(replay.rows[index], replay.widths), replay.rewards[index]


def unpack(rows: jax.Array, widths: Sequence[int]) -> list[jax.Array]:
  """Splits packed rows [..., sum of widths] into fields [..., width]."""
  ends = [sum(widths[: i + 1]) for i in range(len(widths) - 1)]
  return jnp.split(rows, ends, axis=-1)


def relabel(
  replay: Replay, rewards_of: Callable[[list[jax.Array]], jax.Array]
) -> Replay:
  """Rewrites the rewards of every row held, in place and a chunk of rows at a time.

  Args:
    replay: whose rows are left alone.
    rewards_of: fields, each [R, width], to rewards [R, K].
  """
  size = min(CHUNK_ROWS, replay.capacity)
  chunks = (replay.filled + size - 1) // size

  def one(i: jax.Array, rewards: jax.Array) -> jax.Array:
    # The last chunk is moved back to fit; rows that it shares are written twice.
    start = jnp.minimum(i * size, replay.capacity - size)
    rows = jax.lax.dynamic_slice_in_dim(replay.rows, start, size)
    new = rewards_of(unpack(rows, replay.widths))
    return jax.lax.dynamic_update_slice_in_dim(rewards, new, start, axis=0)

  return replay.replace(rewards=jax.lax.fori_loop(0, chunks, one, replay.rewards))
