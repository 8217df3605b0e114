"""C MuJoCo inside a compiled program, on the cores of the host."""

import dataclasses
import functools
import hashlib

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from rlfb_jax.core.mesh import split_batch
from rlfb_jax.physics.base import PhysicsState
from rlfb_jax.physics.host import HostSimulator, StepResult
from rlfb_jax.physics.host_call import host_call


@dataclasses.dataclass(frozen=True, eq=True)
class _StepCall:
  """`HostSimulator.step` with its substeps; equal ones are one function to JAX."""

  host: HostSimulator
  substeps: int

  def __call__(self, rows: np.ndarray, ctrl: np.ndarray) -> StepResult:
    return self.host.step(np.asarray(rows), np.asarray(ctrl), self.substeps)


@dataclasses.dataclass(frozen=True, eq=True)
class _InitCall:
  """`HostSimulator.init`; equal ones are one function to JAX."""

  host: HostSimulator

  def __call__(self, *start: np.ndarray) -> StepResult:
    qpos, qvel, act = (np.asarray(x) for x in start)
    return self.host.init(qpos, qvel, act)


class NativePhysics:
  """`mujoco.batch.Batch` behind the `Physics` contract.

  Bit-equal to dm_control's own stepping (`legacy_step`). The engine state is
  `mjSTATE_INTEGRATION` as uint32 pairs, [N, 2 * nstate], so that float64 states
  pass through a program without x64. Under `jax.vmap` all axes are flattened into
  one batch, stepped by one call on all cores; where a program is spread over devices,
  each calls for its own part. Not differentiable.

  A simulation that diverges shows NaN in its float fields, see `HostSimulator`.
  """

  def __init__(self, model: mujoco.MjModel, num_threads: int = 0):
    """Binds the engine to a model.

    Args:
      model: the model, with the sensors that its task reads.
      num_threads: threads that step; 0 means one a core.

    Raises:
      ValueError: if `num_threads` is negative.
    """
    if num_threads < 0:
      raise ValueError(
        f'num_threads={num_threads} must be at least 0; try 0, one a core.'
      )
    self.model = model
    self.num_threads = num_threads
    self._host = HostSimulator(model, num_threads)
    self._name = f'rlfb_jax_{_digest(model)}_{self.num_threads}'

  def __reduce__(self) -> tuple[type, tuple[mujoco.MjModel, int]]:
    return NativePhysics, (self.model, self.num_threads)

  def init(self, qpos: jax.Array, qvel: jax.Array, act: jax.Array) -> PhysicsState:
    """States at rest in time 0, forward quantities computed, actuation off.

    Args:
      qpos: [N, nq]; qvel: [N, nv]; act: [N, na].
    """
    start = [jnp.asarray(x, jnp.float32) for x in (qpos, qvel, act)]
    return self._call('init', _InitCall(self._host), *start)

  def step(self, state: PhysicsState, ctrl: jax.Array, substeps: int) -> PhysicsState:
    """Advances by `substeps` physics steps under constant controls [N, nu].

    Args:
      state: where to start; only its `engine` is read.
      ctrl: [N, nu]; beyond its range MuJoCo clips, where it is not finite MuJoCo
        takes zeros.
      substeps: physics steps, at least 1.
    """
    call = _StepCall(self._host, substeps)
    ctrl = jnp.asarray(ctrl, jnp.float32)
    return self._call(f'step{substeps}', call, state.engine, ctrl)

  def _call(
    self, name: str, call: _StepCall | _InitCall, *args: jax.Array
  ) -> PhysicsState:
    return split_batch(functools.partial(self._call_once, name, call))(*args)

  def _call_once(
    self, name: str, call: _StepCall | _InitCall, *args: jax.Array
  ) -> PhysicsState:
    lead = args[0].shape[:-1]
    shapes = (
      jax.ShapeDtypeStruct((*lead, 2 * self._host.state_size), jnp.uint32),
      jax.ShapeDtypeStruct((*lead, self._host.common_size), jnp.float32),
      jax.ShapeDtypeStruct(lead, jnp.int32),
    )
    # Few results, because each costs the callback its own copy.
    # Named by the model's contents, so that programs with it can be cached on disk.
    engine, common, num_contacts = host_call(
      f'{self._name}_{name}', call, shapes, *args
    )
    model = self.model
    ends = np.cumsum([model.nq, model.nv, model.na])
    qpos, qvel, act, sensordata = jnp.split(common, ends, axis=-1)
    return PhysicsState(qpos, qvel, act, sensordata, num_contacts, engine)

  def from_integration_state(self, rows: np.ndarray) -> jax.Array:
    """Engine states from `mj_getState(..., mjSTATE_INTEGRATION)` rows.

    Args:
      rows: [..., nstate] float64.

    Returns:
      [..., 2 * nstate] uint32, to be put into `PhysicsState.engine`.

    Raises:
      ValueError: if the rows are of another model.
    """
    rows = np.ascontiguousarray(rows, np.float64)
    if rows.shape[-1] != self._host.state_size:
      raise ValueError(
        f'rows have {rows.shape[-1]} numbers but this model has'
        f' {self._host.state_size}; take them from the same model.'
      )
    return jnp.asarray(rows.view(np.uint32))


def _digest(model: mujoco.MjModel) -> str:
  """Fingerprint of everything that a model holds, the same in every process."""
  contents = np.empty(mujoco.mj_sizeModel(model), np.uint8)
  mujoco.mj_saveModel(model, None, contents)
  return hashlib.sha256(contents.tobytes()).hexdigest()[:16]
