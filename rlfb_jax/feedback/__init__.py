"""What a teacher is shown and says: clips, raters, queries, labels, schedule."""

from rlfb_jax.feedback import archive, preference_store, rating_store, unlabelled_store
from rlfb_jax.feedback.archive import Archive, ArchivedSteps, SegmentIndex
from rlfb_jax.feedback.clip_queries import CLIP_STRATEGIES, Strategy
from rlfb_jax.feedback.clips import Clip, middle
from rlfb_jax.feedback.pair_pool import CandidatePairs, PairPool, draw_pairs
from rlfb_jax.feedback.pair_queries import PAIR_STRATEGIES, Asked
from rlfb_jax.feedback.preference_store import PreferenceStore
from rlfb_jax.feedback.rating_store import RatingStore
from rlfb_jax.feedback.recent_return import mean_recent_reward
from rlfb_jax.feedback.schedule import (
  PairOptions,
  PlannedSession,
  ScheduleOptions,
  label_schedule,
)
from rlfb_jax.feedback.scripted_rater import RaterOptions, RatingAnswers, rate
from rlfb_jax.feedback.scripted_teacher import PreferenceAnswers, TeacherOptions, prefer
from rlfb_jax.feedback.unlabelled_store import UnlabelledStore

__all__ = [
  'CLIP_STRATEGIES',
  'PAIR_STRATEGIES',
  'Archive',
  'ArchivedSteps',
  'Asked',
  'CandidatePairs',
  'Clip',
  'PairOptions',
  'PairPool',
  'PlannedSession',
  'PreferenceAnswers',
  'PreferenceStore',
  'RaterOptions',
  'RatingAnswers',
  'RatingStore',
  'ScheduleOptions',
  'SegmentIndex',
  'Strategy',
  'TeacherOptions',
  'UnlabelledStore',
  'archive',
  'draw_pairs',
  'label_schedule',
  'mean_recent_reward',
  'middle',
  'prefer',
  'preference_store',
  'rate',
  'rating_store',
  'unlabelled_store',
]
