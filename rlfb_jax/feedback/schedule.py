"""When to ask for labels, and for how many. Plain Python, between chunks."""

import dataclasses
import math
from typing import NamedTuple

from rlfb_jax.core.config import Options, option
from rlfb_jax.feedback.clip_queries import CLIP_STRATEGIES
from rlfb_jax.feedback.pair_queries import PAIR_STRATEGIES

SESSION_SIZES = ('constant', 'front', 'back')


@dataclasses.dataclass(frozen=True)
class ScheduleOptions(Options):
  """The label budget. Defaults: walker in rating-based RL's public scripts."""

  label_budget: int = option(1000, 'Labels asked for in the whole run.', low=1)
  labels_per_session: int = option(
    100, 'Labels asked for at a time; the last session takes what is left.', low=1
  )
  session_interval: int = option(
    20_000,
    'Environment steps, over all environments, that must pass between sessions; '
    'rounded up to whole chunks.',
    low=1,
  )
  session_size: str = option(
    'constant',
    'labels_per_session at every session, or times 1 - t / total (front: more labels '
    'early), or times total / (total - t + 1) (back: more labels late).',
    choices=SESSION_SIZES,
  )
  at_episode_end: bool = option(
    True,
    'Sessions also wait until every environment has finished an episode, as in the '
    'public code, whose environments end together.',
  )
  pretrain_steps: int = option(
    32_000,
    'Environment steps of unsupervised pre-training before the first session; '
    'rounded up to whole chunks.',
    low=0,
  )
  segment_steps: int = option(50, 'Control steps in a clip, H.', low=1)
  query: str = option(
    'disagreement',
    'How clips are chosen after the first session, which is uniform.',
    choices=tuple(CLIP_STRATEGIES),
  )
  large_batch: int = option(
    10, 'Candidates per query that disagreement chooses from.', low=1
  )


@dataclasses.dataclass(frozen=True)
class PairOptions(ScheduleOptions):
  """The budget of preferences. Defaults: PEBBLE on walker with 100 labels."""

  label_budget: int = option(100, 'Pairs asked about in the whole run.', low=1)
  labels_per_session: int = option(
    10, 'Pairs asked about at a time; the last session takes what is left.', low=1
  )
  at_episode_end: bool = option(
    False, 'Sessions also wait for the end of an episode, as PrefPPO does.'
  )
  pretrain_steps: int = option(
    10_000,
    'Environment steps, random ones included, before the first session; rounded up '
    'to whole chunks.',
    low=0,
  )
  query: str = option(
    'disagreement',
    'How pairs are chosen after the first session, which is uniform.',
    choices=tuple(PAIR_STRATEGIES),
  )
  large_batch: int = option(
    10, 'Candidate pairs per query, where the strategy chooses among them.', low=1
  )
  recent_episodes: int = option(
    10, 'Newest episodes that near_on_policy draws from (QPA).', low=1
  )
  archive_episodes: int = option(
    100,
    'Newest episodes kept to draw clips from, summed over environments, with SAC and '
    'DDPG for ratings too; PPO keeps all until the last session.',
    low=1,
  )


class PlannedSession(NamedTuple):
  """One request for labels.

  Attributes:
    env_steps: when, in environment steps over all environments.
    num_labels: how many to ask for.
    asked: how many will have been asked for afterwards.
    query: strategy's name.
  """

  env_steps: int
  num_labels: int
  asked: int
  query: str


def _round_up(value: int, unit: int) -> int:
  return math.ceil(value / unit) * unit


def session_size(options: ScheduleOptions, env_steps: int, total_env_steps: int) -> int:
  """Labels to ask for at `env_steps`, before the budget's end is considered.

  B-Pref's `reward_schedule` 0, 1, 2, rounded down as there, but never to zero.
  """
  base, left = options.labels_per_session, total_env_steps - env_steps
  if options.session_size == 'front':
    return max(1, base * left // total_env_steps)
  if options.session_size == 'back':
    return base * total_env_steps // (left + 1)
  return base


def first_labels_at(
  options: ScheduleOptions, chunk_env_steps: int, episode_env_steps: int
) -> int:
  """Environment steps before the first session; see `label_schedule`."""
  due = max(options.pretrain_steps, chunk_env_steps)
  return _fires_at(due, options, chunk_env_steps, episode_env_steps)


def _fires_at(
  due: int, options: ScheduleOptions, chunk_env_steps: int, episode_env_steps: int
) -> int:
  if options.at_episode_end:
    due = _round_up(due, episode_env_steps)
  return _round_up(due, chunk_env_steps)


def label_schedule(
  options: ScheduleOptions,
  *,
  total_env_steps: int,
  chunk_env_steps: int,
  episode_env_steps: int,
) -> tuple[PlannedSession, ...]:
  """All sessions of a run.

  The first follows pre-training (with none: the first chunk); later ones come as
  soon as the interval has passed, an episode has ended (`at_episode_end`) and a
  chunk is complete. With 32 environments and 1000-step episodes, intervals of
  20,000 and 30,000 both mean every 32,000 steps. Skipped queries count as asked.

  Args:
    options: budget and interval.
    total_env_steps: length of the run; a session at or after it could not be used
      and is left out.
    chunk_env_steps: environment steps between two visits of the host, T x N for
      chunks of one rollout.
    episode_env_steps: N x episode length.

  Raises:
    ValueError: if the run leaves no room for any session.
  """

  def fires_at(due: int) -> int:
    return _fires_at(due, options, chunk_env_steps, episode_env_steps)

  sessions: list[PlannedSession] = []
  asked = 0
  at = first_labels_at(options, chunk_env_steps, episode_env_steps)
  while at < total_env_steps and asked < options.label_budget:
    due = session_size(options, at, total_env_steps)
    num_labels = min(due, options.label_budget - asked)
    asked += num_labels
    query = options.query if sessions else 'uniform'
    sessions.append(PlannedSession(at, num_labels, asked, query))
    at = fires_at(at + options.session_interval)
  if not sessions:
    raise ValueError(
      f'--total_env_steps={total_env_steps} ends before the first labels, which are '
      f'asked for at {at} steps; try {at + chunk_env_steps} or more.'
    )
  return tuple(sessions)
