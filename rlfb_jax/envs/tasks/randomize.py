"""Random initial poses, with the distributions of the DeepMind Control Suite."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import ResetSample
from rlfb_jax.physics.base import PhysicsState


def at_rest(model: mujoco.MjModel, qpos: jax.Array) -> ResetSample:
  """The poses [N, nq] with zero velocities and activations."""
  num_envs = qpos.shape[0]
  return (
    qpos,
    jnp.zeros((num_envs, model.nv), jnp.float32),
    jnp.zeros((num_envs, model.na), jnp.float32),
  )


def default_poses(model: mujoco.MjModel, num_envs: int) -> jax.Array:
  """The model's reference pose, repeated, [N, nq] float32."""
  return jnp.tile(jnp.asarray(model.qpos0, jnp.float32), (num_envs, 1))


def uniform_joints(
  key: Key,
  model: mujoco.MjModel,
  num_envs: int,
  unlimited_hinges: bool = True,
) -> jax.Array:
  """Joints drawn independently and uniformly, others left at the reference pose.

  Limited hinges and slides are drawn from their range, unlimited hinges from
  [-pi, pi]; unlimited slides keep their place. As
  `dm_control.suite.utils.randomizers.randomize_limited_and_rotational_joints`.

  Args:
    key: consumed.
    model: all its joints must be hinges or slides.
    num_envs: N.
    unlimited_hinges: False leaves unlimited hinges at the reference pose.

  Returns:
    qpos, [N, nq] float32.

  Raises:
    ValueError: at trace time, if the model has ball or free joints.
  """
  hinge, slide = mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE
  if not np.isin(model.jnt_type, (hinge, slide)).all():
    raise ValueError('uniform_joints takes models whose joints are hinges or slides.')
  limited = model.jnt_limited.astype(bool)
  spinning = (model.jnt_type == hinge) & ~limited & unlimited_hinges
  # All joints have one coordinate, so joint order is coordinate order.
  low = np.where(limited, model.jnt_range[:, 0], np.where(spinning, -np.pi, 0.0))
  high = np.where(limited, model.jnt_range[:, 1], np.where(spinning, np.pi, 0.0))
  drawn = jax.random.uniform(
    key,
    (num_envs, model.nq),
    minval=jnp.asarray(low, jnp.float32),
    maxval=jnp.asarray(high, jnp.float32),
  )
  return jnp.where(limited | spinning, drawn, default_poses(model, num_envs))


def uniform_quaternions(key: Key, num_envs: int) -> jax.Array:
  """Unit quaternions of uniformly distributed orientations, [N, 4] float32."""
  normal = jax.random.normal(key, (num_envs, 4))
  return normal / jnp.linalg.norm(normal, axis=-1, keepdims=True)


def without_contact(physics: PhysicsState) -> jax.Array:
  """Which states touch nothing, [N] bool: an `accept_reset` of tasks."""
  return physics.num_contacts == 0
