"""Pairs that nobody was asked about: what SURF gives pseudo-labels to.

A ring that is never cleared: when it is full, new pairs take the place of the oldest
(Park et al. 2022; `reward_model_semi_dataaug.py` of the public code).
"""

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.feedback import answers as answers_lib
from rlfb_jax.feedback.clips import Clip, Segments


class UnlabelledStore(flax.struct.PyTreeNode):
  """The ring of C pairs; rows before `count` are filled.

  Attributes:
    first: leaves [C, H + 2 margin, ...]; the teacher would judge the middle H steps.
    second: leaves [C, H + 2 margin, ...].
    head: the row that the next pair takes, [] int32.
    count: pairs held, at most C, [] int32.
  """

  first: Segments
  second: Segments
  head: jax.Array
  count: jax.Array


def memory_bytes(
  capacity: int, segment_steps: int, observation_size: int, action_size: int
) -> int:
  """Bytes the ring needs per seed, so that they can be reported before allocation."""
  return capacity * 2 * 4 * segment_steps * (observation_size + action_size)


def init_unlabelled(
  capacity: int, segment_steps: int, observation_size: int, action_size: int
) -> UnlabelledStore:
  """An empty ring.

  Args:
    capacity: pairs kept, C.
    segment_steps: steps of each segment, margins included.
    observation_size: ds.
    action_size: da.
  """
  if capacity < 1 or segment_steps < 1:
    raise ValueError(
      f'A ring of capacity={capacity} pairs of segments of '
      f'segment_steps={segment_steps} steps cannot hold anything; both must be at '
      'least 1.'
    )

  def side() -> Segments:
    return Segments(
      jnp.zeros((capacity, segment_steps, observation_size), jnp.float32),
      jnp.zeros((capacity, segment_steps, action_size), jnp.float32),
    )

  return UnlabelledStore(
    first=side(),
    second=side(),
    head=jnp.zeros((), jnp.int32),
    count=jnp.zeros((), jnp.int32),
  )


def append(
  store: UnlabelledStore,
  first: Clip | Segments,
  second: Clip | Segments,
  *,
  wanted: jax.Array | int | None = None,
) -> UnlabelledStore:
  """Writes B pairs over the oldest; those with numbers that are not finite are lost.

  Args:
    store: what to extend.
    first: leaves [B, H + 2 margin, ...], B at most C.
    second: leaves [B, H + 2 margin, ...].
    wanted: only the first so many are added, [] int32, traced or not. None: all.

  Raises:
    ValueError: at trace time, if the pairs do not fit the ring.
  """
  sides = Segments(first.obs, first.action), Segments(second.obs, second.action)
  answers_lib.check_fits('pair', (store.first, store.second), sides)
  capacity, size = store.first.obs.shape[0], first.obs.shape[0]
  if second.obs.shape[0] != size or size > capacity:
    raise ValueError(
      f'{size} first and {second.obs.shape[0]} second segments must be equally many '
      f'and at most capacity={capacity}.'
    )
  taken = answers_lib.finite_rows(sides)
  if wanted is not None:
    taken &= jnp.arange(size) < wanted
  behind = jnp.cumsum(taken, dtype=jnp.int32)
  rows = jnp.where(taken, (store.head + behind - 1) % capacity, capacity)
  return UnlabelledStore(
    first=answers_lib.put_segments(store.first, sides[0], rows, taken),
    second=answers_lib.put_segments(store.second, sides[1], rows, taken),
    head=(store.head + behind[-1]) % capacity,
    count=jnp.minimum(store.count + behind[-1], capacity),
  )
