"""dm_control's own environments, for tests that compare ours with them."""

import contextlib
import functools
import importlib
import os
import types
from collections.abc import Iterator
from typing import Any

import mujoco
import numpy as np

from rlfb_jax.envs.base import Task
from rlfb_jax.envs.tasks import (
  ball_in_cup,
  cartpole,
  cheetah,
  finger,
  quadruped,
  walker,
)

TASKS: dict[str, Task] = {
  task.name: task
  for domain in (cartpole, ball_in_cup, finger, cheetah, walker, quadruped)
  for task in domain.TASKS
}
INTEGRATION_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


@contextlib.contextmanager
def _no_renderer() -> Iterator[None]:
  """Keeps dm_control from looking for a display while it is imported."""
  before = os.environ.get('MUJOCO_GL')
  os.environ['MUJOCO_GL'] = 'disable'
  try:
    yield
  finally:
    if before is None:
      del os.environ['MUJOCO_GL']
    else:
      os.environ['MUJOCO_GL'] = before


@functools.cache
def dm_control_module(name: str) -> types.ModuleType:
  """Imports a dm_control module, e.g. `suite`."""
  with _no_renderer():
    return importlib.import_module(f'dm_control.{name}')


def load(name: str, seed: int = 0) -> Any:
  """dm_control's environment of the task `<domain>_<task>`."""
  domain, task = name.rsplit('_', 1)
  return dm_control_module('suite').load(domain, task, task_kwargs={'random': seed})


def flatten(observation: Any) -> np.ndarray:
  """Entries of an observation in their order, flattened, float64."""
  return np.concatenate([np.ravel(value) for value in observation.values()])


def integration_state(env: Any) -> np.ndarray:
  """Everything that decides the next step, float64."""
  return env.physics.get_state(INTEGRATION_STATE)
