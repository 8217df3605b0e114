"""Rows behind the filled ones: what all stores of answers have in common."""

from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.feedback.clips import Clip

SCRIPTED = 0  # Annotator number of the scripted teacher; people count from 1.

# Bytes of an answer beside its clips: the answer itself, annotator, confidence and
# env_steps of four bytes each, and skipped.
ANSWER_BYTES = 17

Tree = TypeVar('Tree')


class Answers(flax.struct.PyTreeNode):
  """What is known of answers of any kind. C is the capacity.

  Rows are in order of arrival, filled from the front. A store adds what was shown and
  what was said.

  Attributes:
    skipped: the teacher would not say, [C] bool.
    annotator: who answered, [C] int32; `SCRIPTED` or a person. For the record, as the
      next two are: nothing is learned from them.
    confidence: in [0, 1], [C] float32.
    env_steps: environment steps of the run when asked, [C] int32.
    asked: queries asked so far, skips and lost ones included, [] int32.
    count: rows filled, [] int32.
  """

  skipped: jax.Array
  annotator: jax.Array
  confidence: jax.Array
  env_steps: jax.Array
  asked: jax.Array
  count: jax.Array


def no_answers(capacity: int) -> dict[str, jax.Array]:
  """The fields of `Answers` before anybody was asked."""
  return {
    'skipped': jnp.zeros(capacity, bool),
    'annotator': jnp.zeros(capacity, jnp.int32),
    'confidence': jnp.zeros(capacity, jnp.float32),
    'env_steps': jnp.zeros(capacity, jnp.int32),
    'asked': jnp.zeros((), jnp.int32),
    'count': jnp.zeros((), jnp.int32),
  }


def more_answers(
  store: Answers,
  rows: jax.Array,
  kept: jax.Array,
  *,
  skipped: jax.Array,
  annotator: jax.Array | int,
  confidence: jax.Array | float,
  env_steps: jax.Array | int,
) -> dict[str, Any]:
  """The fields of `Answers` with B more, each [B] or [] for all.

  Args:
    store: what they were.
    rows: where the answers go, and
    kept: how many were asked for, from `behind`.
    skipped: as in `Answers`.
    annotator: as in `Answers`.
    confidence: as in `Answers`.
    env_steps: as in `Answers`.
  """
  return {
    'skipped': put(store.skipped, skipped, rows),
    'annotator': put(store.annotator, annotator, rows),
    'confidence': put(store.confidence, confidence, rows),
    'env_steps': put(store.env_steps, env_steps, rows),
    'asked': store.asked + kept,
    'count': jnp.minimum(store.count + kept, store.skipped.shape[0]),
  }


def usable_labels(store: Answers) -> jax.Array:
  """Rows that hold an answer, [C] bool."""
  return (jnp.arange(store.skipped.shape[0]) < store.count) & ~store.skipped


def empty_clip(
  kind: str,
  capacity: int,
  segment_steps: int,
  observation_size: int,
  action_size: int,
  pose_size: int,
) -> Clip:
  """Room for `capacity` clips of `segment_steps` steps.

  Raises:
    ValueError: if there is no room at all; `kind` names the store.
  """
  if capacity < 1 or segment_steps < 1:
    raise ValueError(
      f'A {kind} store of capacity={capacity} labels on clips of '
      f'segment_steps={segment_steps} steps cannot hold anything; both must be at '
      'least 1.'
    )

  def steps(size: int) -> jax.Array:
    return jnp.zeros((capacity, segment_steps, size), jnp.float32)

  return Clip(steps(observation_size), steps(action_size), steps(pose_size))


def check_fits(kind: str, held: Tree, new: Tree) -> None:
  """Raises ValueError, at trace time, unless `new` [B, H, ...] fits `held` [C, H, ...].

  Otherwise one step would be broadcast over all steps.
  """
  for ours, theirs in zip(jax.tree.leaves(held), jax.tree.leaves(new), strict=True):
    if ours.shape[1:] != theirs.shape[1:]:
      raise ValueError(
        f'A clip of shape {theirs.shape} does not fit a {kind} store made for '
        f'{("B", *ours.shape[1:])}; clips and store must agree in steps and sizes.'
      )


def finite_rows(shown: Tree) -> jax.Array:
  """Which rows hold finite numbers only; leaves [B, H, ...] -> [B] bool."""
  leaves = [jnp.all(jnp.isfinite(x), axis=(1, 2)) for x in jax.tree.leaves(shown)]
  return jnp.all(jnp.stack(leaves), axis=0)


def behind(
  count: jax.Array, capacity: int, size: int, wanted: jax.Array | int | None
) -> tuple[jax.Array, jax.Array]:
  """The rows behind the first `count` for the first `wanted` of `size` answers.

  Returns:
    The row of each, at or beyond the capacity where it is not to be written, [size]
    int32; and how many were asked for, those beyond the capacity included, [] int32.
  """
  kept = jnp.minimum(size if wanted is None else wanted, size).astype(jnp.int32)
  arrival = jnp.arange(size, dtype=jnp.int32)
  return jnp.where(arrival < kept, count + arrival, capacity), kept


def put(held: jax.Array, new: jax.Array | float, rows: jax.Array) -> jax.Array:
  """Writes `new`, [B, ...] or one for all, into `rows`, [B], of `held`, [C, ...].

  Rows at or beyond the capacity are left out.
  """
  shape = (rows.shape[0], *held.shape[1:])
  values = jnp.broadcast_to(jnp.asarray(new, held.dtype), shape)
  return held.at[rows].set(values, mode='drop')


def put_segments(held: Tree, new: Tree, rows: jax.Array, finite: jax.Array) -> Tree:
  """Writes segments, leaves [B, H, ...], as zeros where not `finite`, [B] bool."""

  def write(old: jax.Array, x: jax.Array) -> jax.Array:
    return put(old, jnp.where(finite[:, None, None], x, 0.0), rows)

  return jax.tree.map(write, held, new)
