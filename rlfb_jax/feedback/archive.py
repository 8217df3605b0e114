"""Everything the agent did lately: the pool from which queries are drawn.

A ring of rollouts, time-major, written one rollout at a time. A segment is H
consecutive steps of one environment; it may end with an episode but not run over
its end, nor over the place where the newest step meets the oldest.
"""

import dataclasses
import math
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key
from rlfb_jax.feedback.clips import Clip


class ArchivedSteps(flax.struct.PyTreeNode):
  """T steps of N environments, leaves [T, N, ...].

  Attributes:
    obs: raw observations acted on, [T, N, ds].
    action: actions as executed, [T, N, da].
    pose: what shows the states again, [T, N, np].
    env_reward: for the scripted teacher only, [T, N].
    done: the episode ended after this step, [T, N] bool. Whoever resets environments
      between rollouts must set it on the last step.
  """

  obs: jax.Array
  action: jax.Array
  pose: jax.Array
  env_reward: jax.Array
  done: jax.Array


class Archive(flax.struct.PyTreeNode):
  """The ring.

  Attributes:
    steps: leaves [L, N, ...].
    head: where the next rollout goes, [] int32.
    filled: steps held, at most L, [] int32.
    rollout_steps: T of every rollout; divides L.
  """

  steps: ArchivedSteps
  head: jax.Array
  filled: jax.Array
  rollout_steps: int = flax.struct.field(pytree_node=False)

  @property
  def length(self) -> int:
    """Steps per environment that fit, L."""
    return int(self.steps.done.shape[0])


class SegmentIndex(NamedTuple):
  """Where segments start; leaves [k].

  Attributes:
    start: steps after the oldest one held, int32.
    env: environment, int32.
    valid: False where the archive held no segment to point at, bool.
  """

  start: jax.Array
  env: jax.Array
  valid: jax.Array


def memory_bytes(
  length: int,
  num_envs: int,
  observation_size: int,
  action_size: int,
  pose_size: int,
) -> int:
  """Bytes the ring needs per seed, so that they can be reported before allocation."""
  per_step = 4 * (observation_size + action_size + pose_size + 1) + 1
  return length * num_envs * per_step


def init_archive(
  length: int,
  rollout_steps: int,
  num_envs: int,
  observation_size: int,
  action_size: int,
  pose_size: int,
) -> Archive:
  """An empty ring.

  Args:
    length: steps kept per environment, L.
    rollout_steps: steps per rollout, T; must divide L.
    num_envs: N.
    observation_size: ds.
    action_size: da.
    pose_size: np.
  """
  if rollout_steps < 1 or length < 1 or length % rollout_steps:
    nearest = max(1, math.ceil(length / max(rollout_steps, 1))) * max(rollout_steps, 1)
    raise ValueError(
      f'length={length} must be a positive multiple of '
      f'rollout_steps={rollout_steps}; try {nearest}.'
    )

  def ring(*shape: int) -> jax.Array:
    return jnp.zeros((length, num_envs, *shape), jnp.float32)

  return Archive(
    steps=ArchivedSteps(
      obs=ring(observation_size),
      action=ring(action_size),
      pose=ring(pose_size),
      env_reward=ring(),
      done=jnp.zeros((length, num_envs), bool),
    ),
    head=jnp.zeros((), jnp.int32),
    filled=jnp.zeros((), jnp.int32),
    rollout_steps=rollout_steps,
  )


def append(archive: Archive, rollout: ArchivedSteps) -> Archive:
  """Writes a rollout over the oldest steps.

  Raises:
    ValueError: at trace time, if the rollout has another shape than announced.
  """
  expected = (archive.rollout_steps, *archive.steps.done.shape[1:])
  if rollout.done.shape != expected:
    raise ValueError(
      f'This archive takes rollouts of shape [T, N]={expected}, got '
      f'{rollout.done.shape}.'
    )

  def put(ring: jax.Array, new: jax.Array) -> jax.Array:
    start = [archive.head] + [jnp.zeros((), jnp.int32)] * (ring.ndim - 1)
    return jax.lax.dynamic_update_slice(ring, new.astype(ring.dtype), start)

  return dataclasses.replace(
    archive,
    steps=jax.tree.map(put, archive.steps, rollout),
    head=(archive.head + archive.rollout_steps) % archive.length,
    filled=jnp.minimum(archive.filled + archive.rollout_steps, archive.length),
  )


def ring_index(archive: Archive, steps_after_oldest: jax.Array) -> jax.Array:
  """Rows of the ring, in the shape of `steps_after_oldest`, which is at least 0."""
  oldest = jnp.where(archive.filled == archive.length, archive.head, 0)
  return (oldest + steps_after_oldest) % archive.length


def valid_starts(archive: Archive, segment_steps: int) -> jax.Array:
  """Which segments exist, [L - H + 1, N] bool; row 0 starts at the oldest step.

  A segment may end with `done`, but no earlier step of it may be the end of an
  episode.

  Raises:
    ValueError: at trace time, if a segment is longer than the ring.
  """
  length, num_envs = archive.steps.done.shape
  if not 1 <= segment_steps <= length:
    raise ValueError(
      f'segment_steps={segment_steps} must be between 1 and the archive length '
      f'{length}.'
    )
  done = archive.steps.done[ring_index(archive, jnp.arange(length))]
  ends = jnp.cumsum(done, axis=0, dtype=jnp.int32)
  before = jnp.concatenate([jnp.zeros((1, num_envs), jnp.int32), ends])
  num_starts = length - segment_steps + 1
  # Ends among the first H - 1 steps of the segment that starts at t.
  inside = before[segment_steps - 1 : length] - before[:num_starts]
  in_time = jnp.arange(num_starts) + segment_steps <= archive.filled
  return (inside == 0) & in_time[:, None]


def sample(
  key: Key,
  archive: Archive,
  num_segments: int,
  segment_steps: int,
  recent: int | None = None,
) -> SegmentIndex:
  """Segments drawn uniformly, with replacement, from all that exist.

  The public code of rating-based RL draws an episode and then a start in it, which
  is the same where all episodes are equally long, except that it never draws the
  last start. Where the archive holds no segment the index is marked invalid.

  Args:
    key: randomness, consumed.
    archive: the pool.
    num_segments: k.
    segment_steps: H.
    recent: only segments that lie within so many newest steps of their environment;
      None: all.

  Raises:
    ValueError: at trace time, if a segment is longer than what it is drawn from.
  """
  num_envs = archive.steps.done.shape[1]
  starts = valid_starts(archive, segment_steps)
  if recent is not None:
    if recent < segment_steps:
      raise ValueError(
        f'recent={recent} newest steps hold no segment of segment_steps='
        f'{segment_steps}; try {segment_steps} or more.'
      )
    starts &= (jnp.arange(starts.shape[0]) >= archive.filled - recent)[:, None]
  ranks = jnp.cumsum(starts.reshape(-1), dtype=jnp.int32)
  total = ranks[-1]
  drawn = jax.random.randint(key, (num_segments,), 0, jnp.maximum(total, 1))
  flat = jnp.searchsorted(ranks, drawn + 1).astype(jnp.int32)
  flat = jnp.where(total > 0, flat, 0)
  return SegmentIndex(
    start=flat // num_envs,
    env=flat % num_envs,
    valid=jnp.full(num_segments, total > 0),
  )


def gather(
  archive: Archive, index: SegmentIndex, segment_steps: int
) -> tuple[Clip, jax.Array]:
  """The segments at `index`.

  Returns:
    The clip, leaves [k, H, ...], and for the scripted teacher the true rewards
    [k, H].
  """
  offsets = index.start[:, None] + jnp.arange(segment_steps)
  steps = jax.tree.map(
    lambda x: x[ring_index(archive, offsets), index.env[:, None]], archive.steps
  )
  return Clip(steps.obs, steps.action, steps.pose), steps.env_reward


def latest(archive: Archive, num_steps: int) -> ArchivedSteps:
  """The newest steps of all environments, oldest first, leaves [T, N, ...].

  Steps that were never written are zeros.

  Raises:
    ValueError: at trace time, if more steps are asked for than fit.
  """
  if not 1 <= num_steps <= archive.length:
    raise ValueError(
      f'num_steps={num_steps} must be between 1 and the archive length '
      f'{archive.length}.'
    )
  rows = (archive.head - num_steps + jnp.arange(num_steps)) % archive.length
  return jax.tree.map(lambda x: x[rows], archive.steps)
