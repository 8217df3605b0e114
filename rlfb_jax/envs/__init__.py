"""Environments: `make('walker_walk')`."""

from rlfb_jax.envs.adapter import AdaptedEnvironment
from rlfb_jax.envs.base import Environment, EnvState, Task
from rlfb_jax.envs.make import make, register, task_names

__all__ = [
  'AdaptedEnvironment',
  'EnvState',
  'Environment',
  'Task',
  'make',
  'register',
  'task_names',
]
