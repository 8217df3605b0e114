"""How long a job should take, and who takes which job.

Before anything has run, time is counted: the multiplications of the updates and of all
passes that the reward may make, at the rate at which two cores of an EPYC do them
(`benchmarks/results/updates.md`), and a step of the native engine. What has finished
corrects that count by what it really took.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rlfb_jax.feedback.schedule import label_schedule
from rlfb_jax.methods.config import Config
from rlfb_jax.methods.recipes import SURF
from rlfb_jax.sweeps.jobs import Job

FLOPS_PER_SECOND = 350e9
SECONDS_PER_STEP = 4e-5  # Of one environment.
_INPUTS = 30  # Observation and action together, roughly.


class Estimate(NamedTuple):
  """Expected time of a job.

  Attributes:
    seconds: wall clock, all rows together.
    source: what it rests on, in words.
  """

  seconds: float
  source: str


def counted_seconds(config: Config) -> float:
  """Time of a configuration's runs by the count."""
  run = config.run
  recipe = config.recipe
  if recipe.replays:
    options = config.sac if recipe.agent == 'sac' else config.ddpg
    weights = _weights(options.hidden_size, options.hidden_layers)
    # Products forwards, for the weights and for the inputs, two operations each.
    factor = 32 if recipe.agent == 'sac' else 20
    update = factor * weights * options.batch_size * run.updates_per_step
  else:
    weights = _weights(config.ppo.hidden_size, config.ppo.hidden_layers)
    update = 2 * 6 * weights * config.ppo.num_epochs
  total = config.total_env_steps
  step = update / FLOPS_PER_SECOND + SECONDS_PER_STEP
  learning = _reward_learning(config) / FLOPS_PER_SECOND
  return run.num_seeds * (total * step + learning)


def _reward_learning(config: Config) -> float:
  """Operations of all sessions of one run, if none stops early."""
  recipe, reward = config.recipe, config.reward
  weights = _weights(reward.hidden_size, reward.hidden_layers)
  total = 0.0
  for asked, options, clips in (
    (recipe.rates, config.feedback, 1),
    (recipe.compares, config.pairs, 2),
  ):
    if not asked:
      continue
    # As if the host looked after every step: the world, which says when it does, is
    # not made for an estimate.
    sessions = label_schedule(
      options,
      total_env_steps=config.total_env_steps,
      chunk_env_steps=1,
      episode_env_steps=1,
    )
    labels = sum(session.asked for session in sessions)
    visits = labels * reward.max_passes
    if clips == 2 and SURF in recipe.add:
      surf = config.surf
      visits = labels * surf.reward_update * (1 + surf.unlabelled_ratio)
    total += visits * clips * options.segment_steps
  # Products forwards, for the weights and for the inputs, two operations each.
  return 6 * weights * reward.ensemble_size * total


def estimate(job: Job, jobs: Sequence[Job], taken: Mapping[str, float]) -> Estimate:
  """What a job should take.

  Args:
    job: to be estimated.
    jobs: of the sweep.
    taken: name -> seconds of those that have finished.
  """
  counted = counted_seconds(job.config)
  finished = [j for j in jobs if j.name in taken]
  alike = [j for j in finished if _kind(j) == _kind(job)]
  for among, source in ((alike, 'jobs like it'), (finished, 'other jobs')):
    if among:
      real = sum(taken[j.name] for j in among)
      expected = sum(counted_seconds(j.config) for j in among)
      return Estimate(counted * real / expected, source)
  return Estimate(counted, 'a count of operations')


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
