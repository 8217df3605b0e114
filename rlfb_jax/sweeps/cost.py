"""How long a job should take, and who takes which job.

Before anything has run, time is counted: the multiplications of the updates and of all
passes that the reward may make, at the rate at which two CPU cores do them, and steps
of the native engine there. What has finished corrects that count by what it took.
MJX was not measured, and what an accelerator takes is not known before a job has run.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rlfb_jax.feedback.schedule import (
  PlannedSession,
  ScheduleOptions,
  label_schedule,
)
from rlfb_jax.methods.config import Config
from rlfb_jax.methods.plan import num_envs
from rlfb_jax.methods.recipes import KL, SURF
from rlfb_jax.sweeps.jobs import Job

# In the middle, as a ratio, between the two machines of docs/speed.md, each of which is
# up to 1.7 times as fast or as slow: SAC's update of 1024 x 2 at batches of 1024 takes
# 91 and 230 ms (benchmarks/results/updates.json and updates_avx2.json). The power fits
# the other updates there, the reward's passes, and the 2,831 and 5,454 steps per second
# of PPO (throughput.json, docs/speed.md), whose products are the smallest.
_FLOPS_PER_SECOND = 244e9
_SLOWER_WHEN_SMALL = 0.11
_FULL_ROWS, _FULL_WIDTH = 1024, 1024
# Of walker_walk: 16,301 steps per second on the slower machine (throughput.json), and
# what a step of one environment takes beside its update (both files of updates).
_SECONDS_PER_STEP = 4e-5
_SECONDS_PER_ITERATION = 2e-4
_INPUTS = 30  # Observation and action together, roughly.


class Estimate(NamedTuple):
  """Expected time of a job.

  Attributes:
    seconds: wall clock, all rows together; None where nothing is known.
    source: what it rests on, or why there is nothing, in words.
  """

  seconds: float | None
  source: str


def counted_seconds(config: Config) -> float:
  """Time of a configuration's runs by the count, on two CPU cores.

  Of a run on MJX it tells how it compares with others, not what it takes.
  """
  updates = _updates_off_policy if config.recipe.replays else _updates_on_policy
  total = config.total_env_steps
  moving = total * (_SECONDS_PER_STEP + _SECONDS_PER_ITERATION / num_envs(config))
  return config.run.num_seeds * (moving + updates(config) + _reward_learning(config))


def _updates_off_policy(config: Config) -> float:
  options = config.sac if config.recipe.agent == 'sac' else config.ddpg
  size, batch = options.hidden_size, options.batch_size
  weights = _weights(size, options.hidden_layers)
  # Products forwards, for the weights and for the inputs, two operations each.
  factor = 32 if config.recipe.agent == 'sac' else 20
  update = factor * weights * batch + _repulsion(config, weights)
  count = config.total_env_steps * config.run.updates_per_step
  return count * update / _rate(batch, size)


def _updates_on_policy(config: Config) -> float:
  options, total = config.ppo, config.total_env_steps
  batch = options.minibatch_size
  weights = _weights(options.hidden_size, options.hidden_layers)
  gradient = 2 * 6 * weights * batch
  sessions = [session for _, _, kind in _asked(config) for session in kind]
  exploring = min((s.env_steps for s in sessions), default=0)
  explored = exploring * config.pretrain.num_epochs * gradient
  update = gradient + _repulsion(config, weights)
  learned = (total - exploring) * options.num_epochs * update
  return (explored + learned) / batch / _rate(batch, options.hidden_size)


def _repulsion(config: Config, weights: int) -> float:
  """Operations for a gradient step: the actor's, once in so many steps."""
  if KL not in config.recipe.add:
    return 0.0
  return 6 * weights * config.kl.kl_batch / config.kl.refresh_every


def _reward_learning(config: Config) -> float:
  """Time of all sessions of one run, if none stops early."""
  reward = config.reward
  weights = _weights(reward.hidden_size, reward.hidden_layers)
  total = 0.0
  for options, clips, sessions in _asked(config):
    labels = sum(session.asked for session in sessions)
    visits = labels * reward.max_passes
    if clips == 2 and SURF in config.recipe.add:
      surf = config.surf
      visits = labels * surf.reward_update * (1 + surf.unlabelled_ratio)
    rows = reward.minibatch_size * clips * options.segment_steps
    rate = _rate(rows, reward.hidden_size)
    total += visits * clips * options.segment_steps / rate
  # Products forwards, for the weights and for the inputs, two operations each.
  return 6 * weights * reward.ensemble_size * total


def _asked(
  config: Config,
) -> list[tuple[ScheduleOptions, int, tuple[PlannedSession, ...]]]:
  """Of each kind of question its options, the clips of one, and its sessions."""
  recipe = config.recipe
  kinds = [(config.feedback, 1)] * recipe.rates + [(config.pairs, 2)] * recipe.compares
  return [
    (
      options,
      clips,
      # As if the host looked after every step: the world, which says when it does, is
      # not made for an estimate.
      label_schedule(
        options,
        total_env_steps=config.total_env_steps,
        chunk_env_steps=1,
        episode_env_steps=1,
      ),
    )
    for options, clips in kinds
  ]


def _rate(rows: int, width: int) -> float:
  """Operations a second of an update, by the size of its products."""
  size = min(rows, _FULL_ROWS) * width / (_FULL_ROWS * _FULL_WIDTH)
  return _FLOPS_PER_SECOND * size**_SLOWER_WHEN_SMALL


def estimate(job: Job, jobs: Sequence[Job], taken: Mapping[str, float]) -> Estimate:
  """What a job should take.

  Args:
    job: to be estimated.
    jobs: of the sweep.
    taken: name -> seconds of those that have finished.
  """
  counted = counted_seconds(job.config)
  engine = job.config.run.engine
  finished = [j for j in jobs if j.name in taken and j.config.run.engine == engine]
  alike = [j for j in finished if _kind(j) == _kind(job)]
  for among, source in ((alike, 'jobs like it'), (finished, 'other jobs')):
    if among:
      real = sum(taken[j.name] for j in among)
      expected = sum(counted_seconds(j.config) for j in among)
      return Estimate(counted * real / expected, source)
  if engine == 'mjx':
    return Estimate(None, 'not known for mjx')
  return Estimate(counted, 'a count for two CPU cores')


def shard(jobs: Sequence[Job], index: int, count: int) -> list[Job]:
  """The jobs of one of `count` shards, the dearest first.

  Each job goes to the shard with the least to do so far, by the count alone: what has
  finished meanwhile must not change who does what.
  """
  loads = [0.0] * count
  mine = []
  order = sorted(jobs, key=lambda j: (-counted_seconds(j.config), j.name))
  for job in order:
    lightest = loads.index(min(loads))
    loads[lightest] += counted_seconds(job.config)
    if lightest == index:
      mine.append(job)
  return mine


def _kind(job: Job) -> tuple[str, str]:
  return job.config.run.task, job.config.run.method


def _weights(width: int, layers: int) -> int:
  return width * _INPUTS + width * width * (layers - 1)
