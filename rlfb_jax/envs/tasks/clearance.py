"""How high a rigid body must be placed so that it does not touch the floor.

`dm_control/suite/quadruped.py` lifts the body step by step and asks the collision
detector each time; here the lowest point of every geom has a closed form.
"""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from rlfb_jax.core import linalg

# Slack, m, against the rounding of float32: a pose within it of touching is lifted
# one step further, rather than left in contact.
_SLACK = 1e-6


def height_above_floor(
  model: mujoco.MjModel, body: str, quaternion: jax.Array, step: float
) -> jax.Array:
  """Lowest multiple of `step` at which the turned body is clear of z = 0.

  All joints are at the reference pose. A geom's lowest point is its centre less its
  support function in the direction of gravity.

  Args:
    model: the body and everything on it must be spheres, capsules, ellipsoids or
      cylinders where they can collide.
    body: name of the body with the free joint, whose origin's height is sought.
    quaternion: orientations of that body, unit length, [N, 4].
    step: m.

  Returns:
    Heights, at least 0, [N] float32, m.

  Raises:
    ValueError: at trace time, if a geom has another shape.
  """
  lowest = jnp.min(_lowest_points(model, body, _up_in_body(quaternion)), axis=-1)
  return step * jnp.maximum(jnp.floor((_SLACK - lowest) / step) + 1, 0)


def _up_in_body(quaternion: jax.Array) -> jax.Array:
  """The world's z-axis in the body's frame, [N, 3]: the rotation's third row."""
  w, x, y, z = jnp.moveaxis(quaternion, -1, 0)
  return jnp.stack(
    [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], axis=-1
  )


def _lowest_points(model: mujoco.MjModel, body: str, up: jax.Array) -> jax.Array:
  """Height of every geom's lowest point over the body's origin, [N, geoms]."""
  data = mujoco.MjData(model)
  mujoco.mj_kinematics(model, data)
  root = model.body(body).id
  frame = data.xmat[root].reshape(3, 3)
  lowest = []
  for geom in _colliding_geoms(model, root):
    centre = frame.T @ (data.geom_xpos[geom] - data.xpos[root])
    axes = frame.T @ data.geom_xmat[geom].reshape(3, 3)
    # Direction of the world's z in the geom's frame, [N, 3].
    local = linalg.matmul(up, jnp.asarray(axes, jnp.float32))
    reach = _support(int(model.geom_type[geom]), model.geom_size[geom], local)
    lowest.append(linalg.matmul(up, jnp.asarray(centre, jnp.float32)) - reach)
  return jnp.stack(lowest, axis=-1)


def _colliding_geoms(model: mujoco.MjModel, root: int) -> list[int]:
  floor = model.geom('floor')
  contype, conaffinity = floor.contype[0], floor.conaffinity[0]
  mask = (model.geom_contype & conaffinity) | (model.geom_conaffinity & contype)
  on_body = model.body_rootid[model.geom_bodyid] == root
  return [int(g) for g in np.flatnonzero(on_body & (mask != 0))]


def _support(kind: int, size: np.ndarray, up: jax.Array) -> jax.Array:
  """How far a centred geom reaches along unit directions `up`, [N]."""
  radius, half_length = float(size[0]), float(size[1])
  if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
    return jnp.full(up.shape[:-1], radius)
  if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
    return radius + half_length * jnp.abs(up[..., 2])
  if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
    sine = jnp.linalg.norm(up[..., :2], axis=-1)
    return radius * sine + half_length * jnp.abs(up[..., 2])
  if kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID:
    return jnp.linalg.norm(up * jnp.asarray(size, jnp.float32), axis=-1)
  name = mujoco.mjtGeom(kind).name
  raise ValueError(f'No height above the floor is known for geoms of type {name}.')
