"""Ratings collected so far, with their clips: a fixed-capacity pytree."""

import jax
import jax.numpy as jnp

from rlfb_jax.feedback import answers as answers_lib
from rlfb_jax.feedback.answers import SCRIPTED, Answers
from rlfb_jax.feedback.clips import Clip


class RatingStore(Answers):
  """Ratings of clips, and who gave them.

  Attributes:
    clip: what was shown, leaves [C, H, ...].
    rating: class 0 (worst) to n-1 (best), [C] int32.
  """

  clip: Clip
  rating: jax.Array


def memory_bytes(
  capacity: int,
  segment_steps: int,
  observation_size: int,
  action_size: int,
  pose_size: int,
) -> int:
  """Bytes the rows need per seed, so that they can be reported before allocation."""
  clip = 4 * segment_steps * (observation_size + action_size + pose_size)
  return capacity * (clip + answers_lib.ANSWER_BYTES)


def init_ratings(
  capacity: int,
  segment_steps: int,
  observation_size: int,
  action_size: int,
  pose_size: int,
) -> RatingStore:
  """An empty store for `capacity` labels on clips of `segment_steps` steps."""
  return RatingStore(
    clip=answers_lib.empty_clip(
      'rating', capacity, segment_steps, observation_size, action_size, pose_size
    ),
    rating=jnp.zeros(capacity, jnp.int32),
    **answers_lib.no_answers(capacity),
  )


def append(
  store: RatingStore,
  clip: Clip,
  rating: jax.Array,
  skipped: jax.Array,
  *,
  env_steps: jax.Array | int,
  annotator: jax.Array | int = SCRIPTED,
  confidence: jax.Array | float = 1.0,
  wanted: jax.Array | int | None = None,
) -> RatingStore:
  """Adds B answers behind the filled rows; those beyond the capacity are lost.

  A clip with a number that is not finite (a simulation that broke) is stored as
  skipped: nothing can be learned from it.

  Args:
    store: what to extend.
    clip: leaves [B, H, ...].
    rating: [B] int32.
    skipped: [B] bool.
    env_steps: environment steps of the run so far, [] or [B].
    annotator: who answered, [] or [B].
    confidence: in [0, 1], [] or [B].
    wanted: how many of the answers the budget pays for, [] int32, traced or not:
      the first so many are added, the others were never asked for. None: all.

  Raises:
    ValueError: at trace time, if the clips do not fit the store.
  """
  answers_lib.check_fits('rating', store.clip, clip)
  size = clip.size
  if rating.shape != (size,) or skipped.shape != (size,):
    raise ValueError(
      f'{size} clips need ratings and skips of shape ({size},), got {rating.shape} '
      f'and {skipped.shape}.'
    )
  rows, kept = answers_lib.behind(store.count, store.rating.shape[0], size, wanted)
  finite = answers_lib.finite_rows(clip)
  return RatingStore(
    clip=answers_lib.put_segments(store.clip, clip, rows, finite),
    rating=answers_lib.put(store.rating, rating, rows),
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
