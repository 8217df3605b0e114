"""The native engine against a plain loop over MuJoCo's own functions."""

import pickle

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from rlfb_jax.physics.host import HostSimulator
from rlfb_jax.physics.native import NativePhysics

pytestmark = pytest.mark.optimised

# A ball on a plane under a motor with activation, and a pole; one sensor of each
# stage: position, velocity, acceleration (touch).
XML = """
<mujoco>
  <option timestep="0.004"/>
  <worldbody>
    <geom type="plane" size="5 5 .1"/>
    <body pos="0 0 .11">
      <joint name="x" type="slide" axis="1 0 0" damping=".1"/>
      <joint name="z" type="slide" axis="0 0 1"/>
      <geom name="ball" size=".1" mass="1"/>
      <site name="skin" size=".12"/>
      <body>
        <joint name="pole" axis="0 1 0"/>
        <geom type="capsule" fromto="0 0 .2 0 0 .6" size=".02" mass=".1"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <general joint="x" dyntype="filter" dynprm=".05" gainprm="3" ctrlrange="-1 1"/>
    <motor joint="pole" gear=".2" ctrlrange="-1 1"/>
  </actuator>
  <sensor>
    <jointpos joint="pole"/>
    <framelinvel objtype="geom" objname="ball"/>
    <touch site="skin"/>
  </sensor>
</mujoco>
"""
N = 5


@pytest.fixture(scope='module')
def model():
  return mujoco.MjModel.from_xml_string(XML)


@pytest.fixture(scope='module')
def physics(model):
  return NativePhysics(model)


def start(model, num=N, seed=0):
  rng = np.random.default_rng(seed)
  qpos = rng.uniform(-0.05, 0.05, (num, model.nq)).astype(np.float32)
  qvel = rng.normal(size=(num, model.nv)).astype(np.float32)
  return qpos, qvel, rng.uniform(-1, 1, (num, model.na)).astype(np.float32)


def controls(model, length, num=N, seed=1):
  rng = np.random.default_rng(seed)
  return rng.uniform(-1, 1, (length, num, model.nu)).astype(np.float32)


def take(state, which):
  return jax.tree.map(lambda x: x[np.array(which)], state)


def rows(state):
  return np.asarray(state.engine).view(np.float64)


def test_bit_equal_to_mujocos_own_loop(model, physics):
  """dm_control's order: the second half of a step, the rest, a first half."""
  qpos, qvel, act = start(model)
  ctrls = controls(model, 20)
  state = physics.init(qpos, qvel, act)
  step = jax.jit(lambda s, c: physics.step(s, c, 3))
  datas = []
  for i in range(N):
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:], data.act[:] = qpos[i], qvel[i], act[i]
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_ACTUATION
    mujoco.mj_forward(model, data)
    model.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
    datas.append(data)

  def check():
    signature = mujoco.mjtState.mjSTATE_INTEGRATION
    for i, data in enumerate(datas):
      row = np.zeros(mujoco.mj_stateSize(model, signature))
      mujoco.mj_getState(model, data, row, signature)
      np.testing.assert_array_equal(rows(state)[i], row)
      for name in ('qpos', 'qvel', 'act', 'sensordata'):
        want = np.float32(getattr(data, name))
        np.testing.assert_array_equal(getattr(state, name)[i], want, name)
      assert state.num_contacts[i] == data.ncon

  check()
  for ctrl in ctrls:
    state = step(state, ctrl)
    for data, c in zip(datas, ctrl, strict=True):
      data.ctrl[:] = c
      mujoco.mj_step2(model, data)
      mujoco.mj_step(model, data, 2)
      mujoco.mj_step1(model, data)
    check()
  assert {int(d.ncon) for d in datas} != {0}  # The floor was touched.


def test_restart_from_a_saved_state_gives_the_same_bits(model, physics):
  """Whatever the batch did in between: it may reuse its last call's work."""
  step = jax.jit(lambda s, c: physics.step(s, c, 2))
  ctrls = controls(model, 8)
  state = physics.init(*start(model))
  for ctrl in ctrls[:4]:
    state = step(state, ctrl)
  saved = jax.device_get(state)
  first, again = state, saved
  for ctrl in ctrls[4:]:
    first = step(first, ctrl)
  other = physics.init(*start(model, seed=7))
  for ctrl in ctrls[4:]:
    other = step(other, ctrl)
    again = step(again, ctrl)
  chex.assert_trees_all_equal(first, again)


def test_persistent_batches_change_nothing(model, monkeypatch):
  ctrls = controls(model, 6)
  results = []
  for limit in (0, 1000):
    monkeypatch.setattr('rlfb_jax.physics.host.PERSISTENT_UP_TO', limit)
    host = HostSimulator(model, num_threads=1)
    state, *_ = host.init(*start(model))
    for ctrl in ctrls:
      # Two of five rows start afresh each time, as after a reset.
      state, *rest = host.step(state, ctrl, 2)
      state[:2] = host.init(*start(model, 2))[0]
    results.append((state, *rest))
  for a, b in zip(*results, strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('lead', [(3,), (2, 3)])
def test_vmap_is_one_call_and_the_same_bits(model, physics, lead, monkeypatch):
  calls = []
  original = HostSimulator.step
  monkeypatch.setattr(
    HostSimulator,
    'step',
    lambda self, *args: (calls.append(np.shape(args[0])), original(self, *args))[1],
  )
  num = int(np.prod(lead)) * N
  flat = physics.init(*start(model, num))
  ctrl = controls(model, 1, num)[0]

  def split(x):
    return x.reshape(*lead, N, *x.shape[1:])

  def step(s, c):
    return physics.step(s, c, 2)

  want = step(flat, ctrl)
  calls.clear()
  for _ in lead:
    step = jax.vmap(step)
  got = jax.jit(step)(jax.tree.map(split, flat), split(ctrl))
  jax.block_until_ready(got)
  assert len(calls) == 1
  chex.assert_trees_all_equal(got, jax.tree.map(split, want))


def test_vmap_with_shared_controls(model, physics):
  state = jax.vmap(physics.init)(*(x[None] for x in start(model)))
  ctrl = jnp.asarray(controls(model, 1)[0])

  def step(s, c):
    return physics.step(s, c, 2)

  got = jax.vmap(step, in_axes=(0, None))(state, ctrl)
  want = step(jax.tree.map(lambda x: x[0], state), ctrl)
  chex.assert_trees_all_equal(jax.tree.map(lambda x: x[0], got), want)


def test_divergence_shows_as_nan_and_stays_alone(model, physics, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to a file.
  ctrl = jnp.asarray(controls(model, 1)[0])
  step = jax.jit(lambda s, c: physics.step(s, c, 2))
  healthy = physics.init(*start(model))
  want = step(healthy, ctrl)
  for bad in (np.nan, np.inf, 1e30):
    engine = np.array(healthy.engine)
    engine.view(np.float64)[2, 1] = bad  # The first joint, after the time.
    got = step(healthy.replace(engine=jnp.asarray(engine)), ctrl)
    for name in ('qpos', 'qvel', 'act', 'sensordata'):
      assert np.isnan(getattr(got, name)[2]).all()
    others = [0, 1, 3, 4]
    chex.assert_trees_all_equal(take(got, others), take(want, others))
  # The warning is spent: the next step of a healthy batch is healthy.
  chex.assert_trees_all_equal(step(healthy, ctrl), want)


def test_nothing_compiles_twice(model, physics):
  @chex.assert_max_traces(n=1)
  def step(state, ctrl):
    return physics.step(state, ctrl, 2)

  step = jax.jit(step)
  state = physics.init(*start(model))
  for ctrl in controls(model, 3):
    state = step(state, ctrl)  # A state of `step` is typed like one of `init`.


def test_pickle_keeps_the_engine(model, physics):
  copy = pickle.loads(pickle.dumps(physics))
  state, ctrl = physics.init(*start(model)), controls(model, 1)[0]
  chex.assert_trees_all_equal(copy.step(state, ctrl, 2), physics.step(state, ctrl, 2))


def test_many_batch_sizes_do_not_pile_up(model):
  host = HostSimulator(model, num_threads=1)
  for num in range(1, 30):
    host.init(*start(model, num))
  assert len(host._batches) <= 8


def test_refusals(model, physics):
  with pytest.raises(ValueError, match='num_threads=-1 must be at least 0'):
    NativePhysics(model, num_threads=-1)
  with pytest.raises(ValueError, match='rows have 3 numbers but this model has'):
    physics.from_integration_state(np.zeros((2, 3)))
