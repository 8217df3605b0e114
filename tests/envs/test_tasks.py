"""Models, reset distributions and the floor clearance of the tasks."""

import functools
import subprocess
import sys

import jax
import mujoco
import numpy as np
import pytest
from scipy import stats
from suite_reference import TASKS, dm_control_module, load

from rlfb_jax.envs.tasks import clearance, randomize
from rlfb_jax.physics import models

ALPHA = 1e-6  # Seeds are fixed; a wrong distribution fails by far.
SAMPLES = 4000


@functools.cache
def samples(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  task = TASKS[name]
  model = task.make_model()
  draw = jax.jit(lambda key: task.sample_reset(key, model, SAMPLES))
  qpos, qvel, act = draw(jax.random.key(3))
  assert qpos.shape == (SAMPLES, model.nq)
  assert qvel.shape == (SAMPLES, model.nv)
  assert act.shape == (SAMPLES, model.na)
  for leaf in (qpos, qvel, act):
    assert leaf.dtype == np.float32
    assert not leaf.weak_type
  return np.asarray(qpos), np.asarray(qvel), np.asarray(act)


def assert_uniform(values: np.ndarray, low: float, high: float) -> None:
  assert values.min() >= low - 1e-6
  assert values.max() <= high + 1e-6
  assert stats.kstest(values, 'uniform', (low, high - low)).pvalue > ALPHA
  # Kolmogorov-Smirnov is blind at the ends: the extremes must come close to them.
  gap = 20 * (high - low) / SAMPLES
  assert values.min() < low + gap
  assert values.max() > high - gap


def assert_normal(values: np.ndarray, mean: float, scale: float) -> None:
  assert stats.kstest(values, 'norm', (mean, scale)).pvalue > ALPHA


def assert_independent(values: np.ndarray) -> None:
  correlation = np.corrcoef(values, rowvar=False) - np.eye(values.shape[1])
  assert np.abs(correlation).max() < 5 / np.sqrt(SAMPLES)


@pytest.mark.parametrize('name', TASKS)
def test_model_is_the_suites_own_but_for_sensors(name):
  env = load(name)
  env.reset()  # The finger's task changes its model here.
  ours, theirs = TASKS[name].make_model(), env.physics.model.ptr
  skipped = ('_sizes', 'sensor_', 'name', 'paths', 'plugin', 'text_')
  compared = 0
  for field in dir(theirs):
    value = getattr(theirs, field)
    if isinstance(value, np.ndarray) and not field.startswith(skipped):
      np.testing.assert_array_equal(getattr(ours, field), value, err_msg=field)
      compared += 1
  assert compared > 300
  for field in dir(theirs.opt):
    if not field.startswith('_'):
      np.testing.assert_array_equal(
        getattr(ours.opt, field), getattr(theirs.opt, field), err_msg=field
      )
  count = theirs.nsensor
  np.testing.assert_array_equal(ours.sensor_type[:count], theirs.sensor_type)
  np.testing.assert_array_equal(ours.sensor_adr[:count], theirs.sensor_adr)


@pytest.mark.parametrize('name', TASKS)
def test_sizes_and_timing(name):
  task, env = TASKS[name], load(name)
  model = task.make_model()
  assert task.substeps * model.opt.timestep == pytest.approx(env.control_timestep())
  assert task.episode_length == env._step_limit
  spec = env.action_spec()
  np.testing.assert_allclose(model.actuator_ctrlrange[:, 0], spec.minimum)
  np.testing.assert_allclose(model.actuator_ctrlrange[:, 1], spec.maximum)
  assert task.make_model() is model  # Compiled once.


@pytest.mark.parametrize(
  ('name', 'rotating'),
  [
    ('walker_stand', ['rooty']),
    ('walker_walk', ['rooty']),
    ('walker_run', ['rooty']),
    ('finger_spin', ['hinge']),
    ('cheetah_run', []),
  ],
)
def test_joint_resets(name, rotating):
  model = TASKS[name].make_model()
  qpos, qvel, _ = samples(name)
  np.testing.assert_array_equal(qvel, 0)
  drawn = []
  for joint in range(model.njnt):
    values = qpos[:, model.jnt_qposadr[joint]]
    if model.jnt_limited[joint]:
      assert_uniform(values, *model.jnt_range[joint])
      drawn.append(values)
    elif model.joint(joint).name in rotating:
      assert_uniform(values, -np.pi, np.pi)
      drawn.append(values)
    else:
      np.testing.assert_array_equal(values, model.qpos0[joint])
  assert_independent(np.stack(drawn, axis=-1))


def test_cartpole_resets():
  qpos, qvel, _ = samples('cartpole_balance')
  assert_uniform(qpos[:, 0], -0.1, 0.1)
  assert_uniform(qpos[:, 1], -0.034, 0.034)
  assert_normal(qvel[:, 0], 0, 0.01)
  assert_normal(qvel[:, 1], 0, 0.01)
  assert_independent(np.concatenate([qpos, qvel], axis=-1))
  qpos, qvel, _ = samples('cartpole_swingup')
  assert_normal(qpos[:, 0], 0, 0.01)
  assert_normal(qpos[:, 1], np.pi, 0.01)
  assert_normal(qvel[:, 0], 0, 0.01)
  assert_normal(qvel[:, 1], 0, 0.01)
  assert_independent(np.concatenate([qpos, qvel], axis=-1))


def test_ball_in_cup_resets_before_rejection():
  qpos, qvel, _ = samples('ball_in_cup_catch')
  np.testing.assert_array_equal(qpos[:, :2], 0)  # The cup.
  assert_uniform(qpos[:, 2], -0.2, 0.2)
  assert_uniform(qpos[:, 3], 0.2, 0.5)
  np.testing.assert_array_equal(qvel, 0)
  assert_independent(qpos[:, 2:])


def test_quadruped_orientations_are_uniform():
  qpos, qvel, act = samples('quadruped_walk')
  np.testing.assert_array_equal(qpos[:, :2], 0)
  np.testing.assert_array_equal(qpos[:, 7:], 0)
  np.testing.assert_array_equal(qvel, 0)
  np.testing.assert_array_equal(act, 0)
  quaternion = qpos[:, 3:7]
  np.testing.assert_allclose(np.linalg.norm(quaternion, axis=-1), 1, atol=1e-6)
  # On the 3-sphere, (w, x) of a uniform point has w^2 + x^2 uniform in [0, 1], and
  # its angle uniform; the same for (y, z).
  for pair in (quaternion[:, :2], quaternion[:, 2:]):
    assert_uniform((pair**2).sum(-1), 0, 1)
    assert_uniform(np.arctan2(pair[:, 1], pair[:, 0]), -np.pi, np.pi)
  assert_independent(quaternion)


def test_quadruped_height_is_that_of_dm_controls_loop():
  env = load('quadruped_walk')
  find = dm_control_module('suite.quadruped')._find_non_contacting_height
  model = TASKS['quadruped_walk'].make_model()
  rng = np.random.default_rng(0)
  orientations = rng.normal(size=(150, 4))
  # Upright, on its back, on its sides and nose: the geoms that poke out differ.
  special = [[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [1, -1, 0, 0], [1, 0, 1, 0]]
  special = np.array([*special, [1, 0, -1, 0]])
  # A little aside: exactly upright, the toes touch at exactly one of the heights.
  orientations = np.concatenate([orientations, special + 0.01 * rng.normal(size=4)])
  orientations /= np.linalg.norm(orientations, axis=-1, keepdims=True)
  expected = []
  for orientation in orientations:
    find(env.physics, orientation)
    expected.append(env.physics.named.data.qpos['root'][2])
  heights = clearance.height_above_floor(
    model, 'torso', orientations.astype(np.float32), 0.01
  )
  assert len(np.unique(np.round(expected, 2))) > 15
  np.testing.assert_allclose(heights, expected, atol=1e-6)


def test_quadruped_starts_free_and_one_step_lower_would_touch():
  model = TASKS['quadruped_walk'].make_model()
  data = mujoco.MjData(model)
  qpos, _, _ = samples('quadruped_walk')
  for pose in qpos[:1000]:
    for lift, touching in ((0.0, False), (-0.01 - 2e-6, True)):
      data.qpos[:] = pose
      data.qpos[2] += lift
      mujoco.mj_fwdPosition(model, data)
      assert (data.ncon > 0) == touching


def test_height_refuses_shapes_without_a_formula():
  model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><geom name="floor" type="plane" size="1 1 1"/>'
    '<body name="torso"><freejoint/><geom type="box" size="1 1 1"/></body>'
    '</worldbody></mujoco>'
  )
  with pytest.raises(ValueError, match='mjGEOM_BOX'):
    clearance.height_above_floor(model, 'torso', np.eye(4)[:1], 0.01)
  with pytest.raises(ValueError, match='hinges or slides'):
    randomize.uniform_joints(jax.random.key(0), model, 1)


def test_resets_under_vmap_are_those_of_each_key_alone():
  task = TASKS['quadruped_run']
  model = task.make_model()
  keys = jax.random.split(jax.random.key(0), 2)
  draw = jax.jit(functools.partial(task.sample_reset, model=model, num_envs=3))
  together = jax.vmap(draw)(keys)
  for i in range(2):
    alone = draw(keys[i])
    for ours, theirs in zip(together, alone, strict=True):
      np.testing.assert_allclose(ours[i], theirs, atol=1e-6)


def test_sensor_reading():
  model = TASKS['walker_walk'].make_model()
  data = np.arange(2 * model.nsensordata, dtype=np.float32).reshape(2, -1)
  both = models.read_sensor(model, data, 'torso_subtreelinvel', 'torso_zaxis')
  np.testing.assert_array_equal(both, data[:, :6])
  apart = models.read_sensor(model, data, 'torso_pos', 'torso_subtreelinvel')
  np.testing.assert_array_equal(apart, data[:, [24, 25, 26, 0, 1, 2]])
  with pytest.raises(ValueError, match='no sensor torso_speed; it has torso_sub'):
    models.read_sensor(model, data, 'torso_speed')


def test_missing_suite_is_one_sentence(monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r'dm-control==1\.0\.50'):
    models.load_suite('walker')


def test_unknown_domain_names_the_known():
  with pytest.raises(ValueError, match=r'domain=walkr .* quadruped'):
    models.load_suite('walkr')


def test_models_are_built_without_importing_dm_control():
  program = (
    'import sys\n'
    'from rlfb_jax.envs.tasks import cheetah, quadruped\n'
    'quadruped.TASKS[0].make_model(); cheetah.TASKS[0].make_model()\n'
    'assert not [m for m in sys.modules if m.startswith("dm_control")]\n'
  )
  subprocess.run(
    [sys.executable, '-W', 'error::UserWarning', '-c', program],
    check=True,
    timeout=120,
  )
