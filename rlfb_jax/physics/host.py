"""The host's side of the native engine: MuJoCo's C batch, driven by NumPy alone.

These functions run inside a compiled program's callback, where a call into JAX
could wait for the very thread that it runs on. So: no JAX in this file.
"""

import collections
import contextlib
import copy
import threading

import mujoco
import numpy as np
from mujoco.batch import Batch, SimulationError

# A persistent batch keeps one MjData per simulation and starts a step from the
# stages that the last one ended with (mjSTAGE_VEL is then free), with the same bits.
# Beyond this size the memory traffic eats the gain: on two cores, cheetah gains
# 46 % at 64 simulations and 27 % at 640, the walker 14 % and nothing.
PERSISTENT_UP_TO = 256

# Batches kept per model, one a size: training, evaluation, resets of each.
_BATCHES_KEPT = 8

_DIVERGED = [
  int(mujoco.mjtWarning.mjWARN_BADQPOS),
  int(mujoco.mjtWarning.mjWARN_BADQVEL),
  int(mujoco.mjtWarning.mjWARN_BADQACC),
]

StepResult = tuple[np.ndarray, np.ndarray, np.ndarray]


class HostSimulator:
  """Steps any number of simulations of one model on all cores.

  A simulation is its row of `mjSTATE_INTEGRATION` (float64), which crosses the
  float32 program as pairs of uint32 and so survives bit for bit.

  A simulation that diverges (MuJoCo resets it with a warning) or in which MuJoCo
  raises comes back with NaN in every float of its `common` row; the others never
  notice.
  """

  def __init__(self, model: mujoco.MjModel, num_threads: int):
    """Prepares the model; batches are made when first needed.

    Args:
      model: the model; copied by every batch, so later edits have no effect.
      num_threads: threads that step, the caller's included; 0 means one a core.
    """
    self.model = model
    self.num_threads = num_threads
    self.common_size = model.nq + model.nv + model.na + model.nsensordata
    self._resting_model = copy.copy(model)
    self._resting_model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_ACTUATION
    data = mujoco.MjData(model)
    signature = mujoco.mjtState.mjSTATE_INTEGRATION
    self._default_row = np.zeros(mujoco.mj_stateSize(model, signature))
    mujoco.mj_getState(model, data, self._default_row, signature)
    self._batches: collections.OrderedDict[tuple[int, bool], Batch] = (
      collections.OrderedDict()
    )
    # Two independent callbacks of one program may run at once; a Batch may not.
    self._lock = threading.Lock()

  @property
  def state_size(self) -> int:
    """Numbers (float64) in one simulation's row."""
    return len(self._default_row)

  def init(self, qpos: np.ndarray, qvel: np.ndarray, act: np.ndarray) -> StepResult:
    """Model defaults at the given positions, forward without actuation.

    This is how dm_control ends a reset (`Physics.after_reset`).

    Args:
      qpos: [..., nq]; qvel: [..., nv]; act: [..., na].

    Returns:
      As `step`.
    """
    lead = np.shape(qpos)[:-1]
    with self._lock:
      batch = self._batch(int(np.prod(lead)), resting=True)
      batch.state[:] = self._default_row
      for name, value in (('qpos', qpos), ('qvel', qvel), ('act', act)):
        field = batch.bind(name)
        field[:] = np.asarray(value).reshape(field.shape)
      with contextlib.suppress(SimulationError):  # `_result` reads who failed.
        batch.forward(stage=mujoco.mjtStage.mjSTAGE_ACC.value)
      return self._result(batch, lead)

  def step(self, rows: np.ndarray, ctrl: np.ndarray, substeps: int) -> StepResult:
    """Advances by `substeps` physics steps under constant controls.

    Positions, velocities and their sensors are current afterwards; acceleration,
    force and touch sensors describe the last substep, as in dm_control.

    Args:
      rows: [..., 2 * state_size] uint32, the states.
      ctrl: [..., nu] float32.
      substeps: physics steps.

    Returns:
      The new states as `rows`; qpos, qvel, act and sensordata in a row
      [..., common_size] float32; the number of contacts [...] int32.
    """
    rows = np.ascontiguousarray(rows)
    lead = rows.shape[:-1]
    num = int(np.prod(lead))
    with self._lock:
      batch = self._batch(num, resting=False)
      batch.state[:] = rows.reshape(num, -1).view(np.float64)
      batch.bind('ctrl')[:] = np.asarray(ctrl).reshape(num, -1)
      with contextlib.suppress(SimulationError):  # `_result` reads who failed.
        batch.step(nstep=substeps, stage=mujoco.mjtStage.mjSTAGE_VEL.value)
      return self._result(batch, lead)

  def _batch(self, num: int, resting: bool) -> Batch:
    """The batch of `num` simulations, made on first use, least used forgotten."""
    key = (num, resting)
    if key in self._batches:
      self._batches.move_to_end(key)
      return self._batches[key]
    if len(self._batches) >= _BATCHES_KEPT:
      self._batches.popitem(last=False)
    model = self._resting_model if resting else self.model
    persistent = not resting and num <= PERSISTENT_UP_TO
    batch = Batch(model, num, self.num_threads, persistent)
    for name in ('sensordata', 'ncon'):
      batch.bind(name)  # Registers it: bound fields are copied out by every call.
    self._batches[key] = batch
    return batch

  def _result(self, batch: Batch, lead: tuple[int, ...]) -> StepResult:
    """Copies a call's results out of the batch, which the next call overwrites."""
    common = np.concatenate(
      [batch.bind(name) for name in ('qpos', 'qvel', 'act', 'sensordata')],
      axis=1,
      dtype=np.float32,
      casting='unsafe',
    )
    diverged = batch.warning[:, _DIVERGED, 1].any(axis=1) | (batch.status != 0)
    if diverged.any():
      common[diverged] = np.nan
      batch.warning[:] = 0
    rows = batch.state.copy().view(np.uint32)
    contacts = np.array(batch.bind('ncon'), np.int32)
    return (
      rows.reshape(*lead, rows.shape[-1]),
      common.reshape(*lead, self.common_size),
      contacts.reshape(lead),
    )
