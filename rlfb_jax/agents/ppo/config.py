"""Hyperparameters of PPO, with the values of the rating papers' walker runs."""

import dataclasses

from rlfb_jax.core.config import Options, option


@dataclasses.dataclass(frozen=True)
class PPOOptions(Options):
  """PPO (Schulman et al. 2017) as the rating-based RL codes run it.

  Defaults: Dev1nW/Rating-based-Reinforcement-Learning, walker-walk, with the
  minibatch of 128 that RbRL-KL reports.
  """

  num_envs: int = option(32, 'environments stepped together', low=1)
  rollout_steps: int = option(500, 'control steps per environment per update', low=1)
  stagger_episodes: bool = option(
    False,
    'stagger the first episodes so that environments do not all reset together; every '
    'rollout then contains episode starts',
  )
  num_epochs: int = option(20, 'passes over each rollout', low=1)
  minibatch_size: int = option(128, 'transitions per gradient step', low=1)
  learning_rate: float = option(5e-5, "Adam's step size", above=0.0, sweep=True)
  learning_rate_decay: bool = option(False, 'decay the step size linearly to 0')
  adam_epsilon: float = option(1e-5, "Adam's epsilon", above=0.0, sweep=True)
  discount: float = option(0.99, 'gamma', low=0.0, below=1.0, sweep=True)
  gae_lambda: float = option(0.92, 'lambda of GAE', low=0.0, high=1.0, sweep=True)
  time_limits_terminal: bool = option(
    False,
    'time limits end the return, as in the PrefPPO of B-Pref '
    '(stable_baselines3/common/buffers.py) and the rating-based RL code; by default '
    'values stand for the rest',
  )
  clip_range: float = option(
    0.4, 'clip of the probability ratio', above=0.0, sweep=True
  )
  clip_decay: bool = option(True, 'decay the clip linearly to 0 over training')
  value_coefficient: float = option(
    0.5, 'weight of the value loss', low=0.0, sweep=True
  )
  entropy_coefficient: float = option(
    0.0, 'weight of the entropy bonus', low=0.0, sweep=True, apart=lambda v: v == 0
  )
  max_grad_norm: float = option(
    0.5, "clip of the gradient's norm", above=0.0, sweep=True
  )
  separate_clip: bool = option(
    False, 'clip actor and critic each by its own norm, not by their joint one'
  )
  target_kl: float = option(
    0.0,
    'approximate KL per update that the step size is adapted towards, by a factor of '
    '1.5 per rollout (rsl_rl); 0 disables it',
    low=0.0,
    sweep=True,
  )
  state_dependent_std: bool = option(
    False,
    'the spread of the policy depends on the observation, as under the published '
    "code's gSDE",
  )
  noise_steps: int = option(
    1,
    "control steps that share one draw of the policy's noise; 4 under the published "
    "code's gSDE",
    low=1,
  )
  hidden_size: int = option(256, 'width of actor and critic', low=1)
  hidden_layers: int = option(3, 'hidden layers of actor and critic', low=1)
  initial_log_std: float = option(
    0.0, 'log standard deviation at the start', sweep=True
  )
  min_log_std: float = option(-2.5, 'lower clamp of the log standard deviation')
  max_log_std: float = option(0.5, 'upper clamp of the log standard deviation')
  observation_clip: float = option(10.0, 'clip of whitened observations', above=0.0)

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.min_log_std > self.max_log_std:
      raise ValueError(
        f'min_log_std={self.min_log_std} must not exceed'
        f' max_log_std={self.max_log_std}.'
      )
    size = self.num_envs * self.rollout_steps
    if size % self.minibatch_size:
      raise ValueError(
        f'minibatch_size={self.minibatch_size} must divide num_envs *'
        f' rollout_steps = {size}; try {_nearest_divisor(size, self.minibatch_size)}.'
      )

  @property
  def steps_per_iteration(self) -> int:
    """Environment steps between two updates, summed over environments."""
    return self.num_envs * self.rollout_steps

  @property
  def minibatches_per_epoch(self) -> int:
    """Gradient steps in one pass over a rollout."""
    return self.steps_per_iteration // self.minibatch_size


def _nearest_divisor(size: int, wanted: int) -> int:
  divisors = [d for d in range(1, size + 1) if size % d == 0]
  return min(divisors, key=lambda d: (abs(d - wanted), d))
