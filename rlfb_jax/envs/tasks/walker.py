"""Planar walker: stand, walk and run (DeepMind Control Suite).

Rewards and resets as `dm_control/suite/walker.py`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import mujoco

from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import ResetSample, Task
from rlfb_jax.envs.rewards import tolerance
from rlfb_jax.envs.tasks import randomize
from rlfb_jax.physics.base import PhysicsState
from rlfb_jax.physics.models import add_frame_sensor, load_suite, read_sensor

_BODIES = (
  'torso',
  'right_thigh',
  'right_leg',
  'right_foot',
  'left_thigh',
  'left_leg',
  'left_foot',
)
_STAND_HEIGHT = 1.2  # m, of the torso's centre.
_WALK_SPEED = 1.0  # m/s, of the whole body's centre of mass.
_RUN_SPEED = 8.0  # m/s


@functools.cache
def make_model() -> mujoco.MjModel:
  """The suite's walker with the orientation of every body and the torso's place."""
  spec = load_suite('walker')
  for body in _BODIES:
    add_frame_sensor(spec, 'body', body, 'zaxis')
  add_frame_sensor(spec, 'body', 'torso', 'pos')
  return spec.compile()


def sample_reset(key: Key, model: mujoco.MjModel, num_envs: int) -> ResetSample:
  """Any heading and any joint angles, at rest; the body then falls."""
  return randomize.at_rest(model, randomize.uniform_joints(key, model, num_envs))


def observe(model: mujoco.MjModel, physics: PhysicsState) -> jax.Array:
  """Cosine and sine of 7 bodies' pitch, torso height, velocities, [..., 24]."""
  names = [f'{body}_zaxis' for body in _BODIES]
  axes = read_sensor(model, physics.sensordata, *names)
  axes = axes.reshape(*axes.shape[:-1], len(_BODIES), 3)
  # Bodies turn about y alone, so that the z-axis (sin, 0, cos) says it all; the
  # stride picks the cosine, then the sine.
  orientations = axes[..., ::-2].reshape(*axes.shape[:-2], 2 * len(_BODIES))
  height = read_sensor(model, physics.sensordata, 'torso_pos')[..., 2:]
  return jnp.concatenate([orientations, height, physics.qvel], axis=-1)


def stand_reward(model: mujoco.MjModel, physics: PhysicsState) -> jax.Array:
  """High and upright torso, [...] in [0, 1]."""
  height = read_sensor(model, physics.sensordata, 'torso_pos')[..., 2]
  standing = tolerance(height, (_STAND_HEIGHT, jnp.inf), margin=_STAND_HEIGHT / 2)
  upright = (1 + read_sensor(model, physics.sensordata, 'torso_zaxis')[..., 2]) / 2
  return (3 * standing + upright) / 4


def move_reward(
  speed: float,
) -> Callable[[mujoco.MjModel, PhysicsState, jax.Array], jax.Array]:
  """Reward of moving forward at `speed` m/s or more while standing; 0 is standing."""

  def reward(
    model: mujoco.MjModel, physics: PhysicsState, ctrl: jax.Array
  ) -> jax.Array:
    del ctrl
    stand = stand_reward(model, physics)
    if speed == 0:
      return stand
    velocity = read_sensor(model, physics.sensordata, 'torso_subtreelinvel')[..., 0]
    move = tolerance(
      velocity,
      (speed, jnp.inf),
      margin=speed / 2,
      sigmoid='linear',
      value_at_margin=0.5,
    )
    return stand * (5 * move + 1) / 6

  return reward


def _task(name: str, speed: float) -> Task:
  return Task(
    name=name,
    make_model=make_model,
    substeps=10,
    sample_reset=sample_reset,
    observe=observe,
    reward=move_reward(speed),
    max_segment_return=50.0,
  )


TASKS = (
  _task('walker_stand', 0.0),
  _task('walker_walk', _WALK_SPEED),
  _task('walker_run', _RUN_SPEED),
)
