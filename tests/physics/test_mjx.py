"""MJX behind the contract: against C MuJoCo, and against itself restarted."""

import functools
import pickle

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from rlfb_jax.core.precision import with_precision
from rlfb_jax.envs import task_names
from rlfb_jax.physics.mjx import MjxPhysics, solver_iterations
from rlfb_jax.physics.native import NativePhysics
from tests.core.programs import products

# A ball that a motor with activation drives over a plane, with sensors of each stage.
XML = """
<mujoco>
  <option timestep="0.004" integrator="{integrator}">
    <flag energy="{energy}"/>
  </option>
  <worldbody>
    <geom type="plane" size="5 5 .1"/>
    <body pos="0 0 .1">
      <joint name="x" type="slide" axis="1 0 0" damping=".1"/>
      <joint name="z" type="slide" axis="0 0 1"/>
      <geom name="ball" size=".1" mass="1"/>
      <site name="skin" size=".12"/>
    </body>
  </worldbody>
  <actuator>
    <general joint="x" dyntype="filter" dynprm=".05" gainprm="3" ctrlrange="-1 1"/>
  </actuator>
  <sensor>
    <jointpos joint="x"/>
    <framelinvel objtype="geom" objname="ball"/>
    <touch site="skin"/>
  </sensor>
</mujoco>
"""
N, SUBSTEPS = 3, 3


def make_model(integrator='Euler', energy='disable'):
  return mujoco.MjModel.from_xml_string(
    XML.format(integrator=integrator, energy=energy)
  )


@pytest.fixture(scope='module')
def physics():
  return MjxPhysics(make_model())


@functools.partial(jax.jit, static_argnums=0)
def init(physics, *start):
  return physics.init(*start)


@functools.partial(jax.jit, static_argnums=0)
def step(physics, state, ctrl):
  return physics.step(state, ctrl, SUBSTEPS)


def start(model, seed=0):
  rng = np.random.default_rng(seed)
  qpos = np.zeros((N, model.nq), np.float32)
  qpos[:, 1] = [-0.002, -0.001, 0.3]  # Two on the floor, one in the air.
  qvel = rng.normal(size=(N, model.nv)).astype(np.float32)
  qvel[:, 1] = 0
  return qpos, qvel, rng.uniform(-1, 1, (N, model.na)).astype(np.float32)


def controls(length, seed=1):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.uniform(-1, 1, (length, N, 1)), jnp.float32)


def assert_close(state, reference, force_tolerance):
  for name in ('qpos', 'qvel', 'act', 'sensordata'):
    x, y = np.array(getattr(state, name)), np.array(getattr(reference, name))
    assert x.shape == y.shape
    if name == 'sensordata':
      # The solver ends sooner in float32; a force shows it, a motion hardly.
      np.testing.assert_allclose(x[:, 4], y[:, 4], rtol=force_tolerance)
      x, y = x[:, :4], y[:, :4]
    np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5, err_msg=name)
  np.testing.assert_array_equal(state.num_contacts, reference.num_contacts)


@pytest.mark.parametrize('integrator', ['Euler', 'RK4'])
def test_states_and_sensors_are_native_mujocos(integrator, physics):
  """Sensors of every stage: current, or of the last substep, as in C."""
  model = make_model(integrator)
  physics = physics if integrator == 'Euler' else MjxPhysics(model)
  native = NativePhysics(model, num_threads=1)
  state, reference = init(physics, *start(model)), native.init(*start(model))
  assert_close(state, reference, 1e-4)
  np.testing.assert_array_equal(reference.num_contacts, [1, 1, 0])
  np.testing.assert_array_equal(state.sensordata[:, 4] > 0, [True, True, False])
  for ctrl in controls(5):
    state = step(physics, state, ctrl)
    reference = native.step(reference, ctrl, SUBSTEPS)
    assert_close(state, reference, 1e-3)
  # Forces now are others than those of the last substep, which the sensor shows.
  now = native.init(reference.qpos, reference.qvel, reference.act).sensordata[:2, 4]
  assert (np.abs(now / reference.sensordata[:2, 4] - 1) > 1e-2).any()


def test_a_saved_state_continues_to_the_same_bits(physics):
  model, ctrls = physics.model, controls(6)
  state = init(physics, *start(model))
  for ctrl in ctrls[:3]:
    state = step(physics, state, ctrl)
  # All that is kept is the engine's own fields: the rest is wiped.
  saved = jax.device_get(state)
  wiped = jax.tree.map(jnp.zeros_like, state).replace(engine=saved.engine)
  for ctrl in ctrls[3:]:
    state, wiped = step(physics, state, ctrl), step(physics, wiped, ctrl)
  chex.assert_trees_all_equal(state, wiped)


def test_saved_fields_say_all_that_mjx_itself_would_know(physics):
  """Against `mjx.step` on a whole `mjx.Data` that is never rebuilt."""
  from mujoco import mjx

  model, ctrls = physics.model, controls(4)
  mjx_model = mjx.put_model(model)
  qpos, qvel, act = (jnp.asarray(x) for x in start(model))
  template = mjx.make_data(model)
  whole = jax.vmap(lambda *x: template.replace(qpos=x[0], qvel=x[1], act=x[2]))(
    qpos, qvel, act
  )

  def advance(data, ctrl):
    data = data.replace(ctrl=ctrl)

    def one(data, _):
      return (mjx.step(mjx_model, data), None)

    return jax.lax.scan(one, data, None, length=SUBSTEPS)[0]

  advance = jax.jit(jax.vmap(advance))
  state = init(physics, qpos, qvel, act)
  for ctrl in ctrls:
    whole, state = advance(whole, ctrl), step(physics, state, ctrl)
  for name in ('time', 'qpos', 'qvel', 'act', 'qacc_warmstart'):
    x, y = state.engine[name], getattr(whole, name)
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5, err_msg=name)


def test_divergence_stays_alone(physics):
  state = init(physics, *start(physics.model))
  ctrl = controls(1)[0]
  want = step(physics, state, ctrl)
  engine = {**state.engine, 'qvel': state.engine['qvel'].at[1].set(jnp.nan)}
  got = step(physics, state.replace(engine=engine), ctrl)
  assert jnp.isnan(got.qpos[1]).any()
  rest = np.array([0, 2])
  np.testing.assert_array_equal(got.qpos[rest], want.qpos[rest])


def test_states_of_init_and_step_are_typed_alike(physics):
  state = init(physics, *start(physics.model))
  after = jax.eval_shape(lambda s: physics.step(s, controls(1)[0], SUBSTEPS), state)

  def kind(x):
    return (x.shape, x.dtype, x.weak_type)

  assert jax.tree.map(kind, state) == jax.tree.map(kind, after)
  # Arrays tied to a device by one and not by the other would compile `step` twice.
  assert not any(x.committed for x in jax.tree.leaves(state))


def test_energy_flag_and_iterations():
  model = make_model(energy='enable')
  physics = MjxPhysics(model, iterations=(2, 5))  # MJX itself would refuse.
  options = physics._mjx_model.opt
  assert (int(options.iterations), int(options.ls_iterations)) == (2, 5)
  assert model.opt.enableflags == mujoco.mjtEnableBit.mjENBL_ENERGY  # The caller's.
  kept = pickle.loads(pickle.dumps(physics))
  assert kept.iterations == (2, 5)


def test_solver_presets_cover_every_task():
  for name in task_names():
    assert solver_iterations('benchmark', name) is None
    trimmed = solver_iterations('trimmed', name)
    assert solver_iterations('fast', name) <= trimmed
  assert solver_iterations('fast', 'walker_run') == (2, 5)
  assert solver_iterations('fast', 'cheetah_run') == (4, 8)


def test_refusals(monkeypatch):
  model = make_model()
  with pytest.raises(ValueError, match='impl=cpp is not one of jax, warp'):
    MjxPhysics(model, impl='cpp')
  monkeypatch.setattr('mujoco.mjx.warp.WARP_INSTALLED', False)
  with pytest.raises(ValueError, match='warp-lang, which is not installed'):
    MjxPhysics(model, impl='warp')
  implicit = make_model(integrator='implicit')
  with pytest.raises(ValueError, match='mjINT_IMPLICIT is not known to MJX'):
    MjxPhysics(implicit)


def test_warp_moves_like_native_mujoco():
  pytest.importorskip('warp', reason='needs the extra: pip install "rlfb-jax[warp]"')
  model = make_model()
  physics, native = MjxPhysics(model, 'warp'), NativePhysics(model, num_threads=1)
  state, reference = init(physics, *start(model)), native.init(*start(model))
  for ctrl in controls(3):
    before = state
    state = step(physics, state, ctrl)
    reference = native.step(reference, ctrl, SUBSTEPS)
    assert_close(state, reference, 1e-3)

  def add(x):
    return jnp.stack([x, x[::-1]])

  seeds = jax.vmap(lambda s, c: physics.step(s, c, SUBSTEPS))
  got = jax.jit(seeds)(jax.tree.map(add, before), add(ctrl))
  chex.assert_trees_all_close(got, jax.tree.map(add, state), atol=1e-6)


def test_physics_is_exact_whatever_the_precision_around_it(monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  model = make_model()
  physics = MjxPhysics(model)

  def advance(*where):
    return physics.step(physics.init(*where), jnp.zeros((N, model.nu)), 1)

  program = jax.make_jaxpr(with_precision(advance, 'bfloat16'))(*start(model))
  found = products(program.jaxpr)
  assert len(found) > 4
  exact = jax.lax.Precision.HIGHEST
  assert set(found) == {(exact, exact)}
