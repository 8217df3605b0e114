"""What a teacher is shown and says: clips, raters, queries, labels, schedule."""

from rlfb_jax.feedback import archive, store
from rlfb_jax.feedback.archive import Archive, Rollout, SegmentIndex
from rlfb_jax.feedback.clips import Clip
from rlfb_jax.feedback.queries import STRATEGIES, QueryStrategy, pool_size
from rlfb_jax.feedback.raters import RaterOptions, Ratings, rate
from rlfb_jax.feedback.schedule import (
  ScheduleOptions,
  Session,
  label_schedule,
  labels_due,
  pretrain_chunks,
)
from rlfb_jax.feedback.store import RatingStore

__all__ = [
  'STRATEGIES',
  'Archive',
  'Clip',
  'QueryStrategy',
  'RaterOptions',
  'RatingStore',
  'Ratings',
  'Rollout',
  'ScheduleOptions',
  'SegmentIndex',
  'Session',
  'archive',
  'label_schedule',
  'labels_due',
  'pool_size',
  'pretrain_chunks',
  'rate',
  'store',
]
