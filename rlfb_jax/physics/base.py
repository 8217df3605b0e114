"""The contract between bodies in motion and everything above them.

An engine advances a batch of simulations of one model. A task never learns which
engine moved the bodies: it reads `PhysicsState`'s common fields, and what it needs
beyond joint positions and velocities is a MuJoCo sensor of its model.
"""

from typing import Any, Protocol

import flax.struct
import jax
import mujoco


class PhysicsState(flax.struct.PyTreeNode):
  """A batch of simulations. Every leaf leads with the batch axis [N].

  Attributes:
    qpos: generalised positions, [N, nq] float32.
    qvel: generalised velocities, [N, nv] float32.
    act: actuator activations, [N, na] float32.
    sensordata: the model's sensors, [N, ns] float32. Position and velocity
      sensors are current; acceleration, force and torque sensors describe the
      last substep, as in dm_control.
    num_contacts: contacts detected, [N] int32; resets use it to reject
      penetrating poses.
    engine: the engine's own full state; stepping from a saved one gives the
      same bits at every restart.
  """

  qpos: jax.Array
  qvel: jax.Array
  act: jax.Array
  sensordata: jax.Array
  num_contacts: jax.Array
  engine: Any


class Physics(Protocol):
  """An engine bound to one model."""

  model: mujoco.MjModel

  def init(self, qpos: jax.Array, qvel: jax.Array, act: jax.Array) -> PhysicsState:
    """States at rest in time 0, forward quantities computed, actuation off.

    Args:
      qpos: [N, nq]; qvel: [N, nv]; act: [N, na].
    """
    ...

  def step(self, state: PhysicsState, ctrl: jax.Array, substeps: int) -> PhysicsState:
    """Advances by `substeps` physics steps under constant controls [N, nu]."""
    ...
