"""Cart and pole: balance and swing-up (DeepMind Control Suite).

Reward and resets as `dm_control/suite/cartpole.py`, dense variant, one pole.
"""

import functools

import jax
import jax.numpy as jnp
import mujoco

from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import ResetSample, Task
from rlfb_jax.envs.rewards import tolerance
from rlfb_jax.physics.base import PhysicsState
from rlfb_jax.physics.models import add_frame_sensor, load_suite, read_sensor


@functools.cache
def make_model() -> mujoco.MjModel:
  """The suite's cart-pole with the orientation of its pole."""
  spec = load_suite('cartpole')
  add_frame_sensor(spec, 'body', 'pole_1', 'zaxis')
  return spec.compile()


def sample_balance(key: Key, model: mujoco.MjModel, num_envs: int) -> ResetSample:
  """Near the upright rest: 0.1 m and 0.034 rad at most, slow."""
  pose_key, velocity_key = jax.random.split(key)
  spread = jnp.array([0.1, 0.034])
  qpos = jax.random.uniform(
    pose_key, (num_envs, model.nq), minval=-spread, maxval=spread
  )
  return _with_small_velocities(velocity_key, model, qpos)


def sample_swingup(key: Key, model: mujoco.MjModel, num_envs: int) -> ResetSample:
  """Near the hanging rest: normal errors of 0.01 m and 0.01 rad, slow."""
  pose_key, velocity_key = jax.random.split(key)
  noise = 0.01 * jax.random.normal(pose_key, (num_envs, model.nq))
  return _with_small_velocities(velocity_key, model, jnp.array([0.0, jnp.pi]) + noise)


def _with_small_velocities(
  key: Key, model: mujoco.MjModel, qpos: jax.Array
) -> ResetSample:
  num_envs = qpos.shape[0]
  qvel = 0.01 * jax.random.normal(key, (num_envs, model.nv))
  return qpos, qvel, jnp.zeros((num_envs, model.na), jnp.float32)


def observe(model: mujoco.MjModel, physics: PhysicsState) -> jax.Array:
  """Cart position, cosine and sine of the pole's angle, velocities, [..., 5]."""
  axis = read_sensor(model, physics.sensordata, 'pole_1_zaxis')
  return jnp.concatenate(
    [physics.qpos[..., :1], axis[..., 2:], axis[..., :1], physics.qvel], axis=-1
  )


def reward(model: mujoco.MjModel, physics: PhysicsState, ctrl: jax.Array) -> jax.Array:
  """Upright, centred, calm and with little force, [...] in [0, 1]."""
  cosine = read_sensor(model, physics.sensordata, 'pole_1_zaxis')[..., 2]
  upright = (cosine + 1) / 2
  centered = (1 + tolerance(physics.qpos[..., 0], margin=2.0)) / 2
  small_control = tolerance(
    ctrl[..., 0], margin=1.0, sigmoid='quadratic', value_at_margin=0.0
  )
  small_control = (4 + small_control) / 5
  small_velocity = (1 + tolerance(physics.qvel[..., 1], margin=5.0)) / 2
  return upright * small_control * small_velocity * centered


TASKS = (
  Task(
    name='cartpole_balance',
    make_model=make_model,
    substeps=1,
    sample_reset=sample_balance,
    observe=observe,
    reward=reward,
    max_segment_return=50.0,
  ),
  Task(
    name='cartpole_swingup',
    make_model=make_model,
    substeps=1,
    sample_reset=sample_swingup,
    observe=observe,
    reward=reward,
    max_segment_return=50.0,
  ),
)
