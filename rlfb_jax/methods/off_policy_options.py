"""Options of the off-policy loop."""

import dataclasses

from rlfb_jax.core.config import Options, option


@dataclasses.dataclass(frozen=True)
class ReplayOptions(Options):
  """How agents with a replay buffer collect; defaults: B-Pref on DM Control."""

  num_envs: int = option(1, 'Environments stepped together; published: 1.', low=1)
  random_steps: int = option(
    1000, 'Environment steps with uniformly random actions at the start.', low=0
  )
  chunk_steps: int = option(
    1000, 'Environment steps between two visits of the host.', low=1
  )
  catch_up_updates: int = option(
    100, 'Gradient steps at once when the first labels have been learned.', low=1
  )
  capacity: int = option(
    0, 'Transitions kept for replay; 0 for all of the run, so that none is lost.', low=0
  )
  fresh_labels: bool = option(
    False,
    'Ask the reward model anew for each batch, instead of storing its rewards and '
    'rewriting them after each session: the same rewards at other costs.',
  )

  def __post_init__(self) -> None:
    super().__post_init__()
    for name, unit in (
      ('chunk_steps', 'num_envs'),
      ('random_steps', 'chunk_steps'),
      ('capacity', 'num_envs'),
    ):
      value, step = getattr(self, name), getattr(self, unit)
      if value % step:
        nearest = max(1, round(value / step)) * step
        raise ValueError(
          f'{name}={value} must be a multiple of {unit}={step}; try {nearest}.'
        )


def updates_per_iteration(updates_per_step: float, num_envs: int) -> int:
  """Gradient steps after each step of all environments.

  Raises:
    ValueError: if that is not a whole number of at least one.
  """
  updates = updates_per_step * num_envs
  whole = max(1, round(updates))
  if abs(updates - whole) > 1e-6:
    raise ValueError(
      f'--updates_per_step={updates_per_step:g} with --replay_num_envs={num_envs} makes'
      f' {updates:g} updates each time that all environments step, which must be a'
      f' whole number; try --updates_per_step={whole / num_envs:g}.'
    )
  return whole
