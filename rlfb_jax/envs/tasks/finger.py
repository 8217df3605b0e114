"""Finger and spinner: spin the free body (DeepMind Control Suite).

Reward and reset as `dm_control/suite/finger.py`.
"""

import functools

import jax
import jax.numpy as jnp
import mujoco

from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import ResetSample, Task
from rlfb_jax.envs.tasks import randomize
from rlfb_jax.physics.base import PhysicsState
from rlfb_jax.physics.models import load_suite, read_sensor

_SPIN_VELOCITY = 15.0  # rad/s
_HINGE_DAMPING = 0.03  # N m s/rad; the suite's spin task sets it at each episode.


@functools.cache
def make_model() -> mujoco.MjModel:
  """The suite's finger as its spin task changes it: light damping, no target."""
  model = load_suite('finger').compile()
  model.dof_damping[model.joint('hinge').dofadr] = _HINGE_DAMPING
  for site in ('target', 'tip'):
    model.site(site).rgba[3] = 0.0
  return model


def sample_reset(key: Key, model: mujoco.MjModel, num_envs: int) -> ResetSample:
  """Any joint angles, at rest."""
  return randomize.at_rest(model, randomize.uniform_joints(key, model, num_envs))


def observe(model: mujoco.MjModel, physics: PhysicsState) -> jax.Array:
  """Finger angles, tip from hinge (x, z), velocities, log touch, [..., 9]."""
  read = functools.partial(read_sensor, model, physics.sensordata)
  tip = (read('tip') - read('spinner'))[..., ::2]
  return jnp.concatenate(
    [
      read('proximal', 'distal'),
      tip,
      read('proximal_velocity', 'distal_velocity', 'hinge_velocity'),
      jnp.log1p(read('touchtop', 'touchbottom')),
    ],
    axis=-1,
  )


def reward(model: mujoco.MjModel, physics: PhysicsState, ctrl: jax.Array) -> jax.Array:
  """1 while the body spins at 15 rad/s or faster in the right sense, else 0."""
  del ctrl
  velocity = read_sensor(model, physics.sensordata, 'hinge_velocity')[..., 0]
  return (velocity <= -_SPIN_VELOCITY).astype(jnp.float32)


TASKS = (
  Task(
    name='finger_spin',
    make_model=make_model,
    substeps=2,
    sample_reset=sample_reset,
    observe=observe,
    reward=reward,
    accept_reset=randomize.without_contact,
    max_segment_return=50.0,
  ),
)
