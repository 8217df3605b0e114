"""Environments: `make('walker_walk')`."""

from rlfb_jax.envs.base import Environment, EnvState, Task
from rlfb_jax.envs.make import make, task_names

__all__ = ['EnvState', 'Environment', 'Task', 'make', 'task_names']
