"""Clips are shown one at a time, and rated."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key, Metrics
from rlfb_jax.feedback import archive as archive_lib
from rlfb_jax.feedback import rating_store
from rlfb_jax.feedback.archive import Archive
from rlfb_jax.feedback.clip_queries import CLIP_STRATEGIES, EnsembleReward
from rlfb_jax.feedback.clips import Clip
from rlfb_jax.feedback.rating_store import RatingStore
from rlfb_jax.feedback.recent_return import mean_segment_return
from rlfb_jax.feedback.schedule import PlannedSession, ScheduleOptions
from rlfb_jax.feedback.scripted_rater import RaterOptions, RatingAnswers, rate
from rlfb_jax.methods.questions import Questions, Sizes


class RatingQueries(NamedTuple):
  """Clips to rate.

  Attributes:
    clip: what the teacher is shown, leaves [k, H, ...].
    teacher_rewards: what a scripted teacher judges by, [k, H].
    mean_segment_return: of recent episodes, [].
    valid: False where the archive held no clip to show, [k] bool.
  """

  clip: Clip
  teacher_rewards: jax.Array
  mean_segment_return: jax.Array
  valid: jax.Array


def make_rating_questions(
  rating: RaterOptions,
  options: ScheduleOptions,
  sessions: tuple[PlannedSession, ...],
  sizes: Sizes,
  max_segment_return: float | jax.Array,
) -> Questions:
  """Binds the scripted rater and the timetable.

  Args:
    rating: the scripted rater.
    options: length of clips and how they are chosen.
    sessions: when, and how many.
    sizes: of observations, actions and poses.
    max_segment_return: `G_max` of the task.
  """
  steps = options.segment_steps
  per_session = max(session.num_labels for session in sessions)
  budget = sessions[-1].asked

  def propose(
    archive: Archive,
    members: EnsembleReward,
    store: RatingStore,
    key: Key,
    strategy: str,
    wanted: jax.Array,
  ) -> RatingQueries:
    del store
    pool_key, choose_key = jax.random.split(key)
    query = CLIP_STRATEGIES[strategy]
    size = query.pool_size(per_session, options.large_batch)
    index = archive_lib.sample(pool_key, archive, size, steps)
    clip, rewards = archive_lib.gather(archive, index, steps)
    chosen = query.choose(choose_key, members, clip, per_session, wanted)
    return RatingQueries(
      clip=jax.tree.map(lambda x: x[chosen], clip),
      teacher_rewards=rewards[chosen],
      mean_segment_return=mean_segment_return(archive, steps),
      valid=index.valid[chosen],
    )

  def teach(queries: RatingQueries, key: Key) -> RatingAnswers:
    return rate(
      key,
      queries.teacher_rewards,
      rating,
      max_segment_return,
      queries.mean_segment_return,
    )

  def append(
    store: RatingStore,
    queries: RatingQueries,
    answers: RatingAnswers,
    wanted: jax.Array,
    env_steps: jax.Array,
  ) -> tuple[RatingStore, Metrics]:
    skipped = answers.skipped | ~queries.valid
    before = jnp.sum(store.skipped)
    store = rating_store.append(
      store, queries.clip, answers.rating, skipped, env_steps=env_steps, wanted=wanted
    )
    told = jnp.arange(per_session) < wanted
    return store, {
      'labels_asked': store.asked,
      'labels_skipped': jnp.sum(store.skipped) - before,
      'rated_return': jnp.mean(answers.segment_return, where=told),
    }

  return Questions(
    init=lambda: rating_store.init_ratings(budget, steps, *sizes),
    propose=propose,
    teach=teach,
    append=append,
    sessions=sessions,
    memory_bytes=rating_store.memory_bytes(budget, steps, *sizes),
  )
