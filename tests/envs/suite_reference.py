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


def swinging_actions(
  rng: np.random.Generator, steps: int, size: int, timestep: float
) -> np.ndarray:
  """Strong rhythmic actions as a moving policy gives, [steps, size] float32."""
  frequency = rng.uniform(0.5, 2.5)  # Hz
  phase = rng.uniform(0, 2 * np.pi, size)
  time = np.arange(steps)[:, None] * timestep
  wave = np.sin(2 * np.pi * frequency * time + phase) * 1.5
  return np.clip(wave, -1, 1).astype(np.float32)


def start_moving(name: str, physics: Any, rng: np.random.Generator) -> None:
  """Puts a body, in place, into a state that a good policy visits.

  Args:
    name: task.
    physics: dm_control's physics after a reset.
    rng: small differences between starts.
  """
  domain, task = name.rsplit('_', 1)
  fast = 6.0 if task == 'run' else 1.0
  qpos, qvel = physics.named.data.qpos, physics.named.data.qvel
  with physics.reset_context():
    if domain == 'cartpole':
      qpos['hinge_1'], qvel['hinge_1'] = rng.normal(scale=0.2), 2.0
      qvel['slider'] = 0.5
    elif domain == 'ball_in_cup':  # In the cup, slightly aside.
      qpos['ball_x'], qpos['ball_z'] = rng.normal(scale=0.01), 0.36
    elif domain == 'finger':
      qpos['proximal'], qvel['hinge'] = -1.0, -25.0
    elif domain == 'cheetah':
      qvel['rootx'] = rng.uniform(5, 12)
    elif domain == 'walker':
      qpos['rooty'], qvel['rootx'] = rng.normal(scale=0.1), fast
    elif domain == 'quadruped':
      qpos['root'][2], qvel['root'][0] = 0.6, fast
      qvel['root'][5] = rng.normal()
