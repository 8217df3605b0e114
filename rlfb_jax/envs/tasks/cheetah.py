"""Planar cheetah: run (DeepMind Control Suite).

Reward and reset as `dm_control/suite/cheetah.py`.
"""

import functools

import jax
import jax.numpy as jnp
import mujoco

from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import ResetSample, Task
from rlfb_jax.envs.rewards import tolerance
from rlfb_jax.envs.tasks import randomize
from rlfb_jax.physics.base import PhysicsState
from rlfb_jax.physics.models import load_suite, read_sensor

_RUN_SPEED = 10.0  # m/s, of the whole body's centre of mass.


@functools.cache
def make_model() -> mujoco.MjModel:
  """The suite's cheetah; it has every sensor that the task reads.

  The total mass is set after compilation, as MuJoCo asks for, rather than by the
  file's deprecated attribute; the model is the same to the bit.
  """
  spec = load_suite('cheetah')
  total_mass = spec.compiler.settotalmass
  spec.compiler.settotalmass = -1  # Off.
  model = spec.compile()
  mujoco.mj_setTotalmass(model, total_mass)
  mujoco.mj_setConst(model, mujoco.MjData(model))
  return model


def sample_reset(key: Key, model: mujoco.MjModel, num_envs: int) -> ResetSample:
  """Any leg angles, body at its reference place; the task then lets it settle."""
  poses = randomize.uniform_joints(key, model, num_envs, unlimited_hinges=False)
  return randomize.at_rest(model, poses)


def observe(model: mujoco.MjModel, physics: PhysicsState) -> jax.Array:
  """Joint positions but for the horizontal one, velocities, [..., 17]."""
  del model
  return jnp.concatenate([physics.qpos[..., 1:], physics.qvel], axis=-1)


def reward(model: mujoco.MjModel, physics: PhysicsState, ctrl: jax.Array) -> jax.Array:
  """Forward speed as a share of 10 m/s, [...] in [0, 1]."""
  del ctrl
  speed = read_sensor(model, physics.sensordata, 'torso_subtreelinvel')[..., 0]
  return tolerance(
    speed,
    (_RUN_SPEED, jnp.inf),
    margin=_RUN_SPEED,
    sigmoid='linear',
    value_at_margin=0.0,
  )


TASKS = (
  Task(
    name='cheetah_run',
    make_model=make_model,
    substeps=1,
    sample_reset=sample_reset,
    observe=observe,
    reward=reward,
    settle_substeps=200,
    max_segment_return=25.0,
  ),
)
