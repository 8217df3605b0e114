"""stable-baselines3's PPO (PyTorch) on dm_control's own Python environment.

The settings are ours; the policy is a Gaussian of state-independent spread. What ours
does and this leaves out, running normalisation of observations, would slow it down.

It needs neither JAX nor this package, and runs by itself too, where every line that
is typed in gives the seconds of one more iteration:

  python benchmarks/baselines/sb3_ppo.py --task=walker_walk
"""

from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch
import turns
from dm_control import suite


class SuiteEnvironment(gymnasium.Env):
  """A task of the DeepMind Control Suite with flat observations, float32."""

  def __init__(self, task: str, seed: int):
    """Loads `<domain>_<task>`."""
    domain, _, name = task.rpartition('_')
    self._env = suite.load(domain, name, task_kwargs={'random': seed})
    first = self._flatten(self._env.reset())
    spec = self._env.action_spec()
    self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, first.shape)
    self.action_space = gymnasium.spaces.Box(-1.0, 1.0, spec.shape)
    self._centre = (spec.maximum + spec.minimum) / 2
    self._half_width = (spec.maximum - spec.minimum) / 2

  def reset(
    self, *, seed: int | None = None, options: dict[str, Any] | None = None
  ) -> tuple[np.ndarray, dict[str, Any]]:
    """A fresh episode."""
    return self._flatten(self._env.reset()), {}

  def step(
    self, action: np.ndarray
  ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
    """One control step with an action in [-1, 1]; episodes end by their time limit."""
    time_step = self._env.step(self._centre + self._half_width * action)
    observation = self._flatten(time_step)
    return observation, time_step.reward, False, time_step.last(), {}

  @staticmethod
  def _flatten(time_step: Any) -> np.ndarray:
    parts = [np.ravel(part) for part in time_step.observation.values()]
    return np.concatenate(parts, dtype=np.float32)


def main() -> None:
  options = turns.parse('One iteration of SB3 PPO for each line read.')
  envs = stable_baselines3.common.vec_env.DummyVecEnv(
    [lambda i=i: SuiteEnvironment(options.task, i) for i in range(options.num_envs)]
  )
  layers = [options.hidden_size] * options.hidden_layers
  model = stable_baselines3.PPO(
    'MlpPolicy',
    envs,
    learning_rate=turns.LEARNING_RATE,
    n_steps=options.rollout_steps,
    batch_size=options.minibatch_size,
    n_epochs=options.num_epochs,
    gamma=turns.DISCOUNT,
    gae_lambda=turns.GAE_LAMBDA,
    clip_range=turns.CLIP_RANGE,
    ent_coef=0.0,
    vf_coef=turns.VALUE_COEFFICIENT,
    max_grad_norm=turns.MAX_GRAD_NORM,
    policy_kwargs={
      'net_arch': {'pi': layers, 'vf': layers},
      'activation_fn': torch.nn.Tanh,
    },
    device='cpu',
    seed=0,
  )
  iteration = options.num_envs * options.rollout_steps
  packages = ('torch', 'stable-baselines3', 'gymnasium', 'dm-control', 'mujoco')
  facts = {
    'env_steps': iteration,
    'versions': turns.versions(*packages),
    'threads': torch.get_num_threads(),
    'blas': 'MKL' if torch.backends.mkl.is_available() else 'other',
  }
  turn = turns.Turns(options.warmups, facts)
  while True:
    model.learn(iteration, reset_num_timesteps=False)
    turn.end_iteration()


if __name__ == '__main__':
  main()
