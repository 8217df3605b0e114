"""Hyperparameters of SAC, with the values of the preference papers' walker runs."""

import dataclasses

from rlfb_jax.agents.off_policy_config import OffPolicyOptions
from rlfb_jax.core.config import option


@dataclasses.dataclass(frozen=True)
class SACOptions(OffPolicyOptions):
  """Soft actor-critic (Haarnoja et al. 2018) as preference-based methods run it.

  Defaults are B-Pref's, see `OffPolicyOptions`. Meta-World runs use 256 x 3, batches
  of 512 and 3e-4.
  """

  actor_learning_rate: float = option(
    5e-4, "Adam's step size, actor", above=0.0, sweep=True
  )
  temperature_learning_rate: float = option(
    1e-4,
    "Adam's step size, log temperature; B-Pref never scales it",
    above=0.0,
    sweep=True,
  )
  initial_temperature: float = option(
    0.1, 'weight of the entropy', above=0.0, sweep=True
  )
  target_entropy: float = option(
    0.0,
    'entropy in nats that the temperature aims at; 0 for minus the action size',
    sweep=True,
    apart=lambda v: v == 0,
  )
  target_update_every: int = option(2, 'gradient steps per target update', low=1)
  actor_update_every: int = option(
    1, 'gradient steps of the critics per step of actor and temperature', low=1
  )
  min_log_std: float = option(-5.0, 'lower end of the log standard deviation')
  max_log_std: float = option(2.0, 'upper end of the log standard deviation')

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.min_log_std >= self.max_log_std:
      raise ValueError(
        f'min_log_std={self.min_log_std} must be less than'
        f' max_log_std={self.max_log_std}; try min_log_std={self.max_log_std - 7.0}.'
      )
