"""What a teacher is shown and says: clips, raters, queries, labels, schedule."""

from rlfb_jax.feedback import archive, preferences, store, unlabelled
from rlfb_jax.feedback.archive import Archive, Rollout, SegmentIndex
from rlfb_jax.feedback.clips import Clip, middle
from rlfb_jax.feedback.pair_queries import PAIR_STRATEGIES, Asked, PairStrategy
from rlfb_jax.feedback.pairs import Candidates, PairPool, draw_pairs
from rlfb_jax.feedback.preferences import PreferenceStore
from rlfb_jax.feedback.queries import STRATEGIES, QueryStrategy, pool_size
from rlfb_jax.feedback.raters import RaterOptions, Ratings, rate
from rlfb_jax.feedback.recent_return import mean_recent_reward
from rlfb_jax.feedback.schedule import (
  PairOptions,
  ScheduleOptions,
  Session,
  label_schedule,
)
from rlfb_jax.feedback.store import RatingStore
from rlfb_jax.feedback.teachers import Preferences, TeacherOptions, prefer
from rlfb_jax.feedback.unlabelled import UnlabelledStore

__all__ = [
  'PAIR_STRATEGIES',
  'STRATEGIES',
  'Archive',
  'Asked',
  'Candidates',
  'Clip',
  'PairOptions',
  'PairPool',
  'PairStrategy',
  'PreferenceStore',
  'Preferences',
  'QueryStrategy',
  'RaterOptions',
  'RatingStore',
  'Ratings',
  'Rollout',
  'ScheduleOptions',
  'SegmentIndex',
  'Session',
  'TeacherOptions',
  'UnlabelledStore',
  'archive',
  'draw_pairs',
  'label_schedule',
  'mean_recent_reward',
  'middle',
  'pool_size',
  'prefer',
  'preferences',
  'rate',
  'store',
  'unlabelled',
]
