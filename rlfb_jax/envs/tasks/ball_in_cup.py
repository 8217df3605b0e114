"""Ball on a string: catch it in the cup (DeepMind Control Suite).

Reward and reset as `dm_control/suite/ball_in_cup.py`.
"""

import functools

import jax
import jax.numpy as jnp
import mujoco

from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import ResetSample, Task
from rlfb_jax.envs.tasks import randomize
from rlfb_jax.physics.base import PhysicsState
from rlfb_jax.physics.models import add_frame_sensor, load_suite, read_sensor


@functools.cache
def make_model() -> mujoco.MjModel:
  """The suite's ball and cup with the places of the ball and of its target."""
  spec = load_suite('ball_in_cup')
  add_frame_sensor(spec, 'body', 'ball', 'pos')
  add_frame_sensor(spec, 'site', 'target', 'pos')
  return spec.compile()


def sample_reset(key: Key, model: mujoco.MjModel, num_envs: int) -> ResetSample:
  """Ball anywhere in a 0.4 m by 0.3 m window around the cup, all at rest."""
  ball = jax.random.uniform(
    key,
    (num_envs, 2),
    minval=jnp.array([-0.2, 0.2]),
    maxval=jnp.array([0.2, 0.5]),
  )
  x = int(model.joint('ball_x').qposadr[0])
  z = int(model.joint('ball_z').qposadr[0])
  qpos = randomize.default_poses(model, num_envs)
  qpos = qpos.at[:, x].set(ball[:, 0]).at[:, z].set(ball[:, 1])
  return randomize.at_rest(model, qpos)


def observe(model: mujoco.MjModel, physics: PhysicsState) -> jax.Array:
  """Positions (cup x and z, ball x and z) and velocities, [..., 8]."""
  del model
  return jnp.concatenate([physics.qpos, physics.qvel], axis=-1)


def reward(model: mujoco.MjModel, physics: PhysicsState, ctrl: jax.Array) -> jax.Array:
  """1 while the whole ball is inside the target box, else 0, [...]."""
  del ctrl
  target = read_sensor(model, physics.sensordata, 'target_pos')
  ball = read_sensor(model, physics.sensordata, 'ball_pos')
  offset = jnp.abs(target - ball)[..., ::2]
  room = model.site('target').size[::2] - model.geom('ball').size[0]
  inside = jnp.all(offset < jnp.asarray(room, jnp.float32), axis=-1)
  return inside.astype(jnp.float32)


TASKS = (
  Task(
    name='ball_in_cup_catch',
    make_model=make_model,
    substeps=10,
    sample_reset=sample_reset,
    observe=observe,
    reward=reward,
    accept_reset=randomize.without_contact,
    max_segment_return=50.0,
  ),
)
