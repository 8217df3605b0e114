"""Preferences collected so far, with their pairs: a fixed-capacity pytree."""

import jax
import jax.numpy as jnp

from rlfb_jax.feedback import answers as answers_lib
from rlfb_jax.feedback.answers import SCRIPTED, Answers, usable_labels
from rlfb_jax.feedback.clips import Clip

ANSWERS = ('first better', 'second better', 'equal', 'skipped')


class PreferenceStore(Answers):
  """Preferences between the segments of pairs, and who gave them.

  Attributes:
    first: one segment of each pair, leaves [C, H, ...].
    second: the other, leaves [C, H, ...].
    label: probability that the second is better: 0, 1, or 0.5 for equal, [C] float32.
  """

  first: Clip
  second: Clip
  label: jax.Array


def memory_bytes(
  capacity: int,
  segment_steps: int,
  observation_size: int,
  action_size: int,
  pose_size: int,
) -> int:
  """Bytes the rows need per seed, so that they can be reported before allocation."""
  clip = 4 * segment_steps * (observation_size + action_size + pose_size)
  return capacity * (2 * clip + answers_lib.ANSWER_BYTES)


def init_preferences(
  capacity: int,
  segment_steps: int,
  observation_size: int,
  action_size: int,
  pose_size: int,
) -> PreferenceStore:
  """An empty store for `capacity` labels on pairs of segments of `segment_steps`."""

  def side() -> Clip:
    return answers_lib.empty_clip(
      'preference', capacity, segment_steps, observation_size, action_size, pose_size
    )

  return PreferenceStore(
    first=side(),
    second=side(),
    label=jnp.zeros(capacity, jnp.float32),
    **answers_lib.no_answers(capacity),
  )


def append(
  store: PreferenceStore,
  first: Clip,
  second: Clip,
  label: jax.Array,
  skipped: jax.Array,
  *,
  env_steps: jax.Array | int,
  annotator: jax.Array | int = SCRIPTED,
  confidence: jax.Array | float = 1.0,
  wanted: jax.Array | int | None = None,
) -> PreferenceStore:
  """Adds B answers behind the filled rows; those beyond the capacity are lost.

  A pair with a number that is not finite (a simulation that broke) is stored as
  skipped: nothing can be learned from it.

  Args:
    store: what to extend.
    first: leaves [B, H, ...].
    second: leaves [B, H, ...].
    label: probability that the second is better, [B] in [0, 1].
    skipped: [B] bool.
    env_steps: environment steps of the run so far, [] or [B].
    annotator: who answered, [] or [B].
    confidence: in [0, 1], [] or [B].
    wanted: how many of the answers the budget pays for, [] int32, traced or not:
      the first so many are added, the others were never asked for. None: all.

  Raises:
    ValueError: at trace time, if the pairs do not fit the store.
  """
  answers_lib.check_fits('preference', (store.first, store.second), (first, second))
  size = first.size
  if second.size != size or label.shape != (size,) or skipped.shape != (size,):
    raise ValueError(
      f'{size} first segments need as many second ones and labels and skips of shape '
      f'({size},), got {second.size}, {label.shape} and {skipped.shape}.'
    )
  rows, kept = answers_lib.behind(store.count, store.label.shape[0], size, wanted)
  finite = answers_lib.finite_rows((first, second))
  return PreferenceStore(
    first=answers_lib.put_segments(store.first, first, rows, finite),
    second=answers_lib.put_segments(store.second, second, rows, finite),
    label=answers_lib.put(store.label, label, rows),
    **answers_lib.more_answers(
      store,
      rows,
      kept,
      skipped=skipped | ~finite,
      annotator=annotator,
      confidence=confidence,
      env_steps=env_steps,
    ),
  )


def answer_counts(store: PreferenceStore) -> jax.Array:
  """Number of pairs that got each of `ANSWERS`, [4] int32.

  A label that leans to one side counts for it.
  """
  usable = usable_labels(store)
  kinds = store.label < 0.5, store.label > 0.5, store.label == 0.5
  given = jnp.stack([*(usable & kind for kind in kinds), store.skipped])
  return jnp.sum(given, axis=1, dtype=jnp.int32)
