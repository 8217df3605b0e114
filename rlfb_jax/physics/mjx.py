"""MuJoCo XLA: physics compiled with the rest, the engine for GPUs and TPUs."""

import contextlib
import copy
import functools
import io
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from rlfb_jax.core.batching import fold_vmap
from rlfb_jax.core.mesh import split_batch
from rlfb_jax.core.precision import with_precision
from rlfb_jax.physics.base import PhysicsState

with contextlib.redirect_stdout(io.StringIO()):  # It prints where warp is missing.
  from mujoco import mjx

# Iterations of the constraint solver and of its line search, by preset. How far each is
# from C MuJoCo is measured by experiments/solver_accuracy.py: `trimmed` is the same
# physics in float32 as the models' own 100 or 200 iterations, and `fast` is not. For
# the walker and the cheetah it has MuJoCo Playground's settings.
TRIMMED_ITERATIONS = (8, 10)
FAST_ITERATIONS = {
  'cartpole': (1, 4),
  'ball_in_cup': (2, 5),
  'finger': (4, 8),
  'cheetah': (4, 8),
  'walker': (2, 5),
  'quadruped': (4, 8),
}

_INTEGRATORS = {
  mujoco.mjtIntegrator.mjINT_EULER: mjx.euler,
  mujoco.mjtIntegrator.mjINT_RK4: mjx.rungekutta4,
  mujoco.mjtIntegrator.mjINT_IMPLICITFAST: mjx.implicit,
}

# What one step needs of the last: everything else in `mjx.Data` is computed anew.
_SAVED = ('time', 'qpos', 'qvel', 'act', 'qacc_warmstart')

# Whatever that of the networks around it: contacts do not survive a coarser one.
_PRECISION = 'float32'

Saved = dict[str, jax.Array]
Tree = TypeVar('Tree')


class MjxPhysics:
  """`mujoco.mjx` behind the `Physics` contract.

  The engine state is a dictionary of the few `mjx.Data` fields that a step reads
  (time, qpos, qvel, act, qacc_warmstart), float32. A simulation that diverges
  shows NaN. Under `jax.vmap` all axes are folded into one batch; where a program is
  spread over devices, each has its own part and its own end of the solver's loops.
  """

  def __init__(
    self,
    model: mujoco.MjModel,
    impl: str = 'jax',
    iterations: tuple[int, int] | None = None,
  ):
    """Puts a model on the device.

    Args:
      model: the model, with the sensors that its task reads.
      impl: `jax`, or `warp` (NVIDIA GPUs; steps alone, resets and sensors are
        `jax` there too).
      iterations: at most so many iterations of the constraint solver and of its
        line search; None keeps the model's own.

    Raises:
      ValueError: if `impl` is unknown or not installed, or if MJX lacks the
        model's integrator.
    """
    if impl not in ('jax', 'warp'):
      raise ValueError(f'impl={impl} is not one of jax, warp.')
    if impl == 'warp' and not mjx.warp.WARP_INSTALLED:
      raise ValueError(
        'impl=warp needs the package warp-lang, which is not installed; try'
        ' `pip install "rlfb-jax[warp]"`, or impl=jax.'
      )
    if model.opt.integrator not in _INTEGRATORS:
      name = mujoco.mjtIntegrator(model.opt.integrator).name
      raise ValueError(
        f'integrator={name} is not known to MJX; try Euler, RK4 or implicitfast.'
      )
    self.model = model
    self.impl = impl
    self.iterations = iterations
    adapted = copy.copy(model)
    # Energy is only reported, never used, and MJX refuses to report it.
    adapted.opt.enableflags &= ~int(mujoco.mjtEnableBit.mjENBL_ENERGY)
    if iterations is not None:
      adapted.opt.iterations, adapted.opt.ls_iterations = iterations
    self._adapted = adapted
    self._mjx_model = _uncommitted(mjx.put_model(adapted, impl='jax'))
    self._warp_model = mjx.put_model(adapted, impl='warp') if impl == 'warp' else None
    self._template = _uncommitted(mjx.make_data(adapted, impl='jax'))
    resting = copy.copy(adapted)
    resting.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
    self._resting_model = _uncommitted(mjx.put_model(resting, impl='jax'))
    needs_stage = model.sensor_needstage
    self._reads_forces = bool(np.any(needs_stage == mujoco.mjtStage.mjSTAGE_ACC.value))
    # Compiled apart, so that MJX is traced once however many programs use it, and
    # runs as fast outside of one.
    init = with_precision(jax.vmap(self._init_one), _PRECISION)
    self._init = jax.jit(fold_vmap(init))
    self._steps: dict[int, Callable[[Saved, jax.Array], PhysicsState]] = {}

  def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
    return MjxPhysics, (self.model, self.impl, self.iterations)

  def init(self, qpos: jax.Array, qvel: jax.Array, act: jax.Array) -> PhysicsState:
    """States at rest in time 0, forward quantities computed, actuation off.

    Args:
      qpos: [N, nq]; qvel: [N, nv]; act: [N, na].
    """
    start = [jnp.asarray(x, jnp.float32) for x in (qpos, qvel, act)]
    return split_batch(self._init)(*start)

  def step(self, state: PhysicsState, ctrl: jax.Array, substeps: int) -> PhysicsState:
    """Advances by `substeps` physics steps under constant controls [N, nu].

    Args:
      state: where to start; only its `engine` is read.
      ctrl: [N, nu]; beyond its range it is clipped.
      substeps: physics steps, at least 1.
    """
    if substeps not in self._steps:
      step_all = with_precision(functools.partial(self._step_all, substeps), _PRECISION)
      self._steps[substeps] = jax.jit(fold_vmap(step_all))
    step = split_batch(self._steps[substeps])
    return step(state.engine, jnp.asarray(ctrl, jnp.float32))

  def _init_one(self, qpos: jax.Array, qvel: jax.Array, act: jax.Array) -> PhysicsState:
    """`init` of one simulation."""
    data = self._template.replace(qpos=qpos, qvel=qvel, act=act)
    sensordata = data.sensordata
    if self._reads_forces:
      sensordata = mjx.forward(self._resting_model, data).sensordata
    return self._finish({name: getattr(data, name) for name in _SAVED}, sensordata)

  def _step_all(self, substeps: int, saved: Saved, ctrl: jax.Array) -> PhysicsState:
    """`step` of a whole batch, leaves [N, ...]."""
    advance = self._advance_jax
    if self.impl == 'warp':
      # Warp keeps the contacts of all simulations in one array of a fixed size.
      contacts = max(1, self._template._impl.ncon) * ctrl.shape[0]
      rows = max(1, self._template._impl.nefc)
      template = mjx.make_data(
        self._adapted, impl='warp', naconmax=contacts, njmax=rows
      )
      advance = functools.partial(self._advance_warp, template)
    saved, sensordata = jax.vmap(lambda s, c: advance(s, c, substeps))(saved, ctrl)
    return jax.vmap(self._finish)(saved, sensordata)

  def _advance_jax(
    self, saved: Saved, ctrl: jax.Array, substeps: int
  ) -> tuple[Saved, jax.Array]:
    """One simulation after `substeps`, and its sensors during the last of them."""
    integrate = _INTEGRATORS[self.model.opt.integrator]

    def substep(
      carry: tuple[Saved, jax.Array], _: None
    ) -> tuple[tuple[Saved, jax.Array], None]:
      data = self._template.replace(**carry[0], ctrl=ctrl)
      data = mjx.forward(self._mjx_model, data)
      # Read before the integrator: Runge-Kutta's inner stages run them as well.
      sensordata = data.sensordata
      data = integrate(self._mjx_model, data)
      return ({name: getattr(data, name) for name in _SAVED}, sensordata), None

    start = saved, self._template.sensordata
    return jax.lax.scan(substep, start, None, length=substeps)[0]

  def _advance_warp(
    self, template: mjx.Data, saved: Saved, ctrl: jax.Array, substeps: int
  ) -> tuple[Saved, jax.Array]:
    """As `_advance_jax`, in Warp's kernels."""
    data = template.replace(**saved, ctrl=ctrl)

    def substep(data: mjx.Data, _: None) -> tuple[mjx.Data, None]:
      return mjx.step(self._warp_model, data), None

    data = jax.lax.scan(substep, data, None, length=substeps)[0]
    return {name: getattr(data, name) for name in _SAVED}, data.sensordata

  def _finish(self, saved: Saved, sensordata: jax.Array) -> PhysicsState:
    """Brings what depends on position and velocity up to date, as `mj_step1`.

    Args:
      saved: one simulation's engine state.
      sensordata: sensors of the last substep, [ns]; of these the acceleration,
        force and touch sensors stay.
    """
    model = self._mjx_model
    data = self._template.replace(**saved, sensordata=sensordata)
    # What no sensor reads, such as the constraints, the compiler removes.
    data = mjx.sensor_pos(model, mjx.fwd_position(model, data))
    data = mjx.sensor_vel(model, mjx.fwd_velocity(model, data))
    contact = data._impl.contact
    touching = contact.dist < contact.includemargin
    return PhysicsState(
      qpos=data.qpos,
      qvel=data.qvel,
      act=data.act,
      sensordata=data.sensordata,
      num_contacts=touching.sum(dtype=jnp.int32),
      engine=saved,
    )


def _uncommitted(tree: Tree) -> Tree:
  """The same arrays, tied to no device.

  MJX ties its constants to one; what they touch would be tied as well, and a state
  before its first step would then be of another kind than after it, which compiles
  a second time.
  """
  return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), tree)


def solver_iterations(solver: str, name: str) -> tuple[int, int] | None:
  """What a solver preset means for a task; None keeps the model's own settings.

  Args:
    solver: `benchmark`, `trimmed` or `fast`.
    name: the task's name, which starts with its domain's.
  """
  if solver == 'trimmed':
    return TRIMMED_ITERATIONS
  if solver == 'fast':
    return next(v for domain, v in FAST_ITERATIONS.items() if name.startswith(domain))
  return None
