"""Quadruped: walk and run on a plain floor (DeepMind Control Suite).

Reward and reset as `dm_control/suite/quadruped.py` (its `Move` task).
"""

import functools

import jax
import jax.numpy as jnp
import mujoco

from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import ResetSample, Task
from rlfb_jax.envs.rewards import tolerance
from rlfb_jax.envs.tasks import randomize
from rlfb_jax.envs.tasks.clearance import height_above_floor
from rlfb_jax.physics.base import PhysicsState
from rlfb_jax.physics.models import add_frame_sensor, load_suite, read_sensor

_WALK_SPEED = 0.5  # m/s, of the torso along its own x-axis.
_RUN_SPEED = 5.0  # m/s
_EPISODE_SECONDS = 20.0
_HEIGHT_STEP = 0.01  # m; the suite lifts a random pose by this until it is free.
_WALLS = ('wall_px', 'wall_py', 'wall_nx', 'wall_ny')
_FREE_POSITIONS, _FREE_VELOCITIES = 7, 6  # Of the root; the rest are hinges.
_LEGS = ('front_left', 'front_right', 'back_right', 'back_left')
_FORCES = tuple(f'force_toe_{leg}' for leg in _LEGS)
_TORQUES = tuple(f'torque_toe_{leg}' for leg in _LEGS)


@functools.cache
def make_model(speed: float) -> mujoco.MjModel:
  """The suite's quadruped without terrain, walls, ball, target and rangefinders.

  Args:
    speed: m/s; the floor is drawn as wide as the body gets in an episode.
  """
  spec = load_suite('quadruped')
  for name in (*_WALLS, 'terrain'):
    spec.delete(spec.geom(name))
  spec.delete(spec.body('ball'))
  spec.delete(spec.site('target'))
  for sensor in list(spec.sensors):
    if sensor.type == mujoco.mjtSensor.mjSENS_RANGEFINDER:
      spec.delete(sensor)
  width = _EPISODE_SECONDS * speed
  spec.geom('floor').size = (width, width, 0.5)
  add_frame_sensor(spec, 'body', 'torso', 'zaxis')
  return spec.compile()


def sample_reset(key: Key, model: mujoco.MjModel, num_envs: int) -> ResetSample:
  """Any orientation, legs at the reference pose, as low as the floor allows."""
  quaternion = randomize.uniform_quaternions(key, num_envs)
  height = height_above_floor(model, 'torso', quaternion, _HEIGHT_STEP)
  root = jnp.zeros((num_envs, 3)).at[:, 2].set(height)
  legs = randomize.default_poses(model, num_envs)[:, _FREE_POSITIONS:]
  return randomize.at_rest(model, jnp.concatenate([root, quaternion, legs], axis=-1))


def observe(model: mujoco.MjModel, physics: PhysicsState) -> jax.Array:
  """Joint angles, their velocities, activations and sensors, [..., 78].

  In order: 16 hinge angles, 16 hinge velocities, 12 activations, torso velocity in
  its own frame (3), torso upright (1), accelerometer and gyroscope (6), forces and
  torques at the toes through an inverse hyperbolic sine (24).
  """
  read = functools.partial(read_sensor, model, physics.sensordata)
  return jnp.concatenate(
    [
      physics.qpos[..., _FREE_POSITIONS:],
      physics.qvel[..., _FREE_VELOCITIES:],
      physics.act,
      read('velocimeter'),
      read('torso_zaxis')[..., 2:],
      read('imu_accel', 'imu_gyro'),
      jnp.arcsinh(read(*_FORCES, *_TORQUES)),
    ],
    axis=-1,
  )


def _task(name: str, speed: float) -> Task:
  def reward(
    model: mujoco.MjModel, physics: PhysicsState, ctrl: jax.Array
  ) -> jax.Array:
    """Upright torso that moves along its own x-axis, [...] in [0, 1]."""
    del ctrl
    velocity = read_sensor(model, physics.sensordata, 'velocimeter')[..., 0]
    move = tolerance(
      velocity,
      (speed, jnp.inf),
      margin=speed,
      sigmoid='linear',
      value_at_margin=0.5,
    )
    upright = tolerance(
      read_sensor(model, physics.sensordata, 'torso_zaxis')[..., 2],
      (1.0, jnp.inf),
      margin=2.0,
      sigmoid='linear',
      value_at_margin=0.0,
    )
    return upright * move

  return Task(
    name=name,
    make_model=functools.partial(make_model, speed),
    substeps=4,
    sample_reset=sample_reset,
    observe=observe,
    reward=reward,
    max_segment_return=20.0,
  )


TASKS = (_task('quadruped_walk', _WALK_SPEED), _task('quadruped_run', _RUN_SPEED))
