"""What follows from a configuration before anything is built: clocks and sizes."""

import pathlib
from typing import NamedTuple

import jax

from rlfb_jax.core import replay as replay_lib
from rlfb_jax.core.config import is_traced
from rlfb_jax.envs.base import Environment
from rlfb_jax.feedback import archive as archive_lib
from rlfb_jax.feedback.schedule import (
  PlannedSession,
  ScheduleOptions,
  first_labels_at,
  label_schedule,
)
from rlfb_jax.methods.algorithm import PerKind
from rlfb_jax.methods.config import Config
from rlfb_jax.methods.feedback import ArchiveShape
from rlfb_jax.methods.off_policy_parts import replay_widths
from rlfb_jax.methods.recipes import SURF, Recipe


class Memory(NamedTuple):
  """Bytes that a run takes beside networks and environments, all seeds together."""

  replay: int
  archive: int
  answers: int

  @property
  def total(self) -> int:
    """All of it."""
    return sum(self)


def num_envs(config: Config) -> int:
  """Environments stepped together."""
  return config.replay.num_envs if config.recipe.replays else config.ppo.num_envs


def iterations_per_chunk(config: Config, env: Environment) -> int:
  """PPO updates between two visits of the host: whole episodes where that fits."""
  iterations, rest = divmod(env.episode_length, config.ppo.rollout_steps)
  return iterations if iterations and not rest else 1


def chunk_env_steps(config: Config, env: Environment) -> int:
  """Environment steps between two visits of the host."""
  if config.recipe.replays:
    return config.replay.chunk_steps
  return config.ppo.steps_per_iteration * iterations_per_chunk(config, env)


def sessions(config: Config, env: Environment) -> PerKind:
  """When people are asked, `PlannedSession`s; () for a kind that is not asked."""

  def schedule(options: ScheduleOptions) -> tuple[PlannedSession, ...]:
    return label_schedule(
      options,
      total_env_steps=config.total_env_steps,
      chunk_env_steps=chunk_env_steps(config, env),
      episode_env_steps=env.episode_length * num_envs(config),
    )

  recipe = config.recipe
  return PerKind(
    ratings=schedule(config.feedback) if recipe.rates else (),
    pairs=schedule(config.pairs) if recipe.compares else (),
  )


def timetables(config: Config) -> list[ScheduleOptions]:
  """The options of each kind of question that is asked."""
  recipe = config.recipe
  return [config.feedback] * recipe.rates + [config.pairs] * recipe.compares


def shortest_run(config: Config, env: Environment) -> int:
  """Least environment steps of a run: a chunk, and one after the first labels."""
  chunk = chunk_env_steps(config, env)
  episode = env.episode_length * num_envs(config)
  first = [first_labels_at(o, chunk, episode) for o in timetables(config)]
  return chunk + max(first, default=0)


def first_session(config: Config, env: Environment) -> int:
  """Environment steps at which anybody is asked for the first time."""
  return min(kind[0].env_steps for kind in sessions(config, env) if kind)


def budget_spent_at(config: Config, env: Environment) -> int | None:
  """Environment steps at which nobody will be asked again; None if the run ends first.

  With both kinds of question, when both budgets are spent.
  """
  asked = zip(
    sessions(config, env),
    (config.feedback.label_budget, config.pairs.label_budget),
    strict=True,
  )
  ends = [
    kind[-1].env_steps if kind[-1].asked == budget else None
    for kind, budget in asked
    if kind
  ]
  spent = [end for end in ends if end is not None]
  return max(spent) if len(spent) == len(ends) else None


def archive_shape(config: Config, env: Environment) -> ArchiveShape:
  """Behaviour that the last session may still choose from.

  On-policy everything until then; with a replay buffer the newest episodes, as in
  the public code of PEBBLE.
  """
  envs = num_envs(config)
  if config.recipe.replays:
    rollout_steps = config.replay.chunk_steps // envs
  else:
    rollout_steps = config.ppo.rollout_steps
  last = max(s.env_steps for kind in sessions(config, env) for s in kind)
  steps = max(-(-last // envs), rollout_steps)
  if config.recipe.replays:
    episodes = -(-config.pairs.archive_episodes // envs)
    steps = min(steps, episodes * env.episode_length)
  rollouts = -(-steps // rollout_steps)
  return ArchiveShape(rollouts * rollout_steps, rollout_steps, envs)


def replay_capacity(config: Config) -> int:
  """Transitions that the replay buffer holds, a whole number of insertions."""
  wanted = config.replay.capacity or config.total_env_steps
  return -(-wanted // config.replay.num_envs) * config.replay.num_envs


def segment_return_scale(config: Config, env: Environment) -> float | jax.Array:
  """`G_max`: the segment return that fills the rater's scale.

  Raises:
    ValueError: if neither the task nor the user names one.
  """
  steps = config.feedback.segment_steps
  given = config.rating.max_return
  if is_traced(given) or given > 0:
    return given
  if env.max_segment_return <= 0:
    raise ValueError(
      f'--rating_max_return=0 leaves the scale to the task, but {env.name} names'
      f' none; give the return of a good segment of {steps} steps.'
    )
  # The tasks name it for the 50 steps that all papers use.
  return env.max_segment_return * steps / 50


def memory(config: Config, env: Environment, answers: int) -> Memory:
  """What a run takes beside networks and environments.

  Args:
    config: the run's.
    env: whose sizes count.
    answers: bytes of one seed's stores of answers.
  """
  recipe, seeds = config.recipe, config.run.num_seeds
  replay = archive = 0
  if recipe.replays:
    columns = config.reward.ensemble_size if recipe.ask else 1
    replay = replay_lib.memory_bytes(
      replay_capacity(config), replay_widths(env), columns
    )
  if recipe.ask:
    shape = archive_shape(config, env)
    archive = archive_lib.memory_bytes(
      shape.length,
      shape.num_envs,
      env.observation_size,
      env.action_size,
      env.pose_size,
    )
  copies = float(seeds)
  if recipe.replays and seeds > 1 and jax.default_backend() == 'cpu':
    # Seeds take turns in a loop whose results do not share memory with its inputs.
    copies = 2.0 * seeds + 1.0
  return Memory(*(int(copies * part) for part in (replay, archive, answers)))


def memory_available() -> int | None:
  """Bytes free on the device that JAX computes on; None where it will not tell."""
  device = jax.local_devices()[0]
  if device.platform != 'cpu':
    stats = device.memory_stats() or {}
    limit = stats.get('bytes_limit')
    return None if limit is None else limit - stats.get('bytes_in_use', 0)
  try:
    lines = pathlib.Path('/proc/meminfo').read_text().splitlines()
  except OSError:
    return None
  facts = dict(line.split(':') for line in lines)
  return 1024 * int(facts['MemAvailable'].split()[0])


def refuse_beyond(needed: Memory, available: int | None, config: Config) -> None:
  """Refuses a run that cannot fit, before anything is allocated.

  Args:
    needed: by the run.
    available: bytes; None where nobody knows.
    config: whose flags would make it smaller.

  Raises:
    ValueError: naming what it needs and what would make it smaller.
  """
  if available is not None and needed.total > available:
    raise ValueError(
      f'This run takes {needed.total / 2**30:.1f} GiB ({needed.replay / 2**30:.1f} for'
      f' replay, {needed.archive / 2**30:.1f} for clips to ask about,'
      f' {needed.answers / 2**30:.1f} for labelled and unlabelled ones) and'
      f' {available / 2**30:.1f} GiB are free; lower --num_seeds or'
      f' --{_flag_of_largest(needed, config.recipe)}.'
    )


def _flag_of_largest(needed: Memory, recipe: Recipe) -> str:
  """The flag that the largest part of the memory follows."""
  kind = 'feedback' if recipe.rates else 'pairs'
  part = max(needed._fields, key=lambda name: getattr(needed, name))
  if part == 'replay':
    return 'replay_capacity'
  if part == 'archive':
    # Without a replay buffer it reaches back from the last session to the start.
    return 'pairs_archive_episodes' if recipe.replays else f'{kind}_session_interval'
  return 'surf_unlabelled_per_label' if SURF in recipe.add else f'{kind}_label_budget'
