"""Two clips are shown, and the better one is named."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key, Metrics
from rlfb_jax.feedback import preference_store, unlabelled_store
from rlfb_jax.feedback.archive import Archive
from rlfb_jax.feedback.clip_queries import EnsembleReward
from rlfb_jax.feedback.clips import middle
from rlfb_jax.feedback.pair_pool import PairPool, draw_pairs
from rlfb_jax.feedback.pair_queries import PAIR_STRATEGIES, asked_so_far
from rlfb_jax.feedback.preference_store import PreferenceStore
from rlfb_jax.feedback.recent_return import mean_segment_return
from rlfb_jax.feedback.schedule import PairOptions, PlannedSession
from rlfb_jax.feedback.scripted_teacher import PreferenceAnswers, TeacherOptions, prefer
from rlfb_jax.feedback.unlabelled_store import UnlabelledStore
from rlfb_jax.methods.questions import Questions, Sizes


class PairMemory(flax.struct.PyTreeNode):
  """Answers, and the pairs that nobody was asked about (SURF) or None."""

  asked: PreferenceStore
  unlabelled: UnlabelledStore | None


class PairQueries(NamedTuple):
  """Pairs to compare.

  Attributes:
    shown: the pairs, H + 2 margin steps each, of which the middle H are shown.
    mean_segment_return: of the last finished episodes, scaled to H steps, [].
    opening: whether nobody has been asked before, [] bool.
    unlabelled: pairs that nobody will be asked about, m of them, or None.
  """

  shown: PairPool
  mean_segment_return: jax.Array
  opening: jax.Array
  unlabelled: PairPool | None


def make_pair_questions(
  teacher: TeacherOptions,
  options: PairOptions,
  sessions: tuple[PlannedSession, ...],
  sizes: Sizes,
  num_envs: int,
  episode_length: int,
  *,
  margin: int = 0,
  unlabelled_per_label: int = 0,
) -> Questions:
  """Binds the scripted teacher and the timetable.

  Args:
    teacher: the scripted teacher.
    options: length of clips and how pairs are chosen.
    sessions: when, and how many.
    sizes: of observations, actions and poses.
    num_envs: N, to count episodes by.
    episode_length: control steps.
    margin: steps kept on each side of a clip for cropping (SURF).
    unlabelled_per_label: pairs kept without a label for each label asked (SURF).
  """
  steps = options.segment_steps
  stored_steps = steps + 2 * margin
  per_session = max(session.num_labels for session in sessions)
  budget = sessions[-1].asked
  recent = -(-options.recent_episodes // num_envs) * episode_length

  def propose(
    archive: Archive,
    members: EnsembleReward,
    store: PairMemory,
    key: Key,
    strategy: str,
    wanted: jax.Array,
  ) -> PairQueries:
    pool_key, choose_key, unlabelled_key = jax.random.split(key, 3)
    query = PAIR_STRATEGIES[strategy]
    pool = draw_pairs(
      pool_key,
      archive,
      query.pool_size(per_session, options.large_batch),
      stored_steps,
      recent if query.recent_only else None,
    )
    chosen = query.choose(
      choose_key,
      members,
      pool.candidates,
      per_session,
      asked_so_far(store.asked),
      wanted,
    )
    unlabelled = None
    if unlabelled_per_label:
      count = unlabelled_per_label * per_session
      unlabelled = draw_pairs(unlabelled_key, archive, count, stored_steps)
    return PairQueries(
      shown=pool.take(chosen),
      mean_segment_return=mean_segment_return(archive, steps),
      opening=store.asked.asked == 0,
      unlabelled=unlabelled,
    )

  def teach(queries: PairQueries, key: Key) -> PreferenceAnswers:
    return prefer(
      key,
      middle(queries.shown.first_rewards, steps),
      middle(queries.shown.second_rewards, steps),
      teacher,
      queries.mean_segment_return,
      queries.opening,
    )

  def append(
    store: PairMemory,
    queries: PairQueries,
    answers: PreferenceAnswers,
    wanted: jax.Array,
    env_steps: jax.Array,
  ) -> tuple[PairMemory, Metrics]:
    skipped = answers.skipped | ~queries.shown.valid
    first, second = queries.shown.candidates
    asked = preference_store.append(
      store.asked,
      first,
      second,
      answers.label,
      skipped,
      env_steps=env_steps,
      wanted=wanted,
    )
    unlabelled = store.unlabelled
    if unlabelled is not None and queries.unlabelled is not None:
      # The archive holds a segment for all of them or for none.
      drawn = queries.unlabelled.valid[0]
      unlabelled = unlabelled_store.append(
        unlabelled,
        *queries.unlabelled.candidates,
        wanted=jnp.where(drawn, wanted * unlabelled_per_label, 0),
      )
    told = jnp.arange(per_session) < wanted
    return PairMemory(asked, unlabelled), {
      'pairs_asked': asked.asked,
      'pairs_skipped': jnp.sum(asked.skipped) - jnp.sum(store.asked.skipped),
      'compared_return': jnp.mean(answers.returns, where=told[:, None]),
      'answer_counts': preference_store.answer_counts(asked),
    }

  def init() -> PairMemory:
    unlabelled = None
    if unlabelled_per_label:
      unlabelled = unlabelled_store.init_unlabelled(
        budget * unlabelled_per_label, stored_steps, *sizes[:2]
      )
    asked = preference_store.init_preferences(budget, stored_steps, *sizes)
    return PairMemory(asked, unlabelled)

  memory_bytes = preference_store.memory_bytes(budget, stored_steps, *sizes)
  if unlabelled_per_label:
    memory_bytes += unlabelled_store.memory_bytes(
      budget * unlabelled_per_label, stored_steps, *sizes[:2]
    )
  return Questions(
    init=init,
    propose=propose,
    teach=teach,
    append=append,
    sessions=sessions,
    memory_bytes=memory_bytes,
  )
