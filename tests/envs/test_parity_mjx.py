"""MJX beside dm_control: the same states give the same observations and rewards.

In float32 the engines part ways within seconds of chaotic motion. So states are
compared one by one, and motion over ten control steps from settled bodies.

Compilation is what costs here: there is one program a domain, a single physics step
of all states, and everything is read from its results.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from suite_reference import TASKS, flatten, load, start_moving, swinging_actions

from rlfb_jax.envs.environment import MujocoEnvironment
from rlfb_jax.physics.base import PhysicsState
from rlfb_jax.physics.mjx import MjxPhysics
from rlfb_jax.physics.native import NativePhysics

DOMAINS = ('cartpole', 'ball_in_cup', 'finger', 'cheetah', 'walker', 'quadruped')
STEPS = 10  # Control steps.
Start = tuple[np.ndarray, np.ndarray, np.ndarray]  # qpos, qvel, act, float32.

# Eight states that a moving policy visits, eight settled ones, sixteen reset draws.
SETTLED, SAMPLED = slice(8, 16), slice(16, 32)
NUM_STATES = 32

# Observations that read acceleration, force and touch sensors.
FORCES = {
  'finger': np.r_[7:9],
  'quadruped': np.r_[48:51, 54:78],
}


def first_task(domain: str) -> str:
  """One model serves all tasks of a domain: they differ in drawn floors at most."""
  return next(name for name in TASKS if name.startswith(domain))


def domain_of(name: str) -> str:
  return name.rsplit('_', 1)[0]


@functools.cache
def starts(domain: str) -> Start:
  """States that a moving policy visits, settled ones, and draws of the reset."""
  name = first_task(domain)
  env, rng = load(name, seed=3), np.random.default_rng(3)
  states = []
  for i in range(8):
    env.reset()
    start_moving(name, env.physics, rng)
    for action in swinging_actions(
      rng, 2 + 3 * i, env.physics.model.nu, env.control_timestep()
    ):
      env.step(action)
    states.append(_state(env.physics.data))
  for _ in range(8):
    env.reset()
    for _ in range(int(2 / env.control_timestep())):
      env.step(np.zeros(env.physics.model.nu))
    states.append(_state(env.physics.data))
  states.extend(_sampled(name, 16))
  qpos, qvel, act = (np.stack(x) for x in zip(*states, strict=True))
  return qpos, qvel, act


def _sampled(name: str, num: int) -> list[Start]:
  """Draws of the reset before rejection: with and without contact, if there are."""
  task = TASKS[name]
  model = task.make_model()
  draws = map(np.asarray, task.sample_reset(jax.random.key(3), model, 500))
  free, touching = [], []
  for qpos, qvel, act in zip(*draws, strict=True):
    (touching if _contacts(model, qpos) else free).append((qpos, qvel, act))
  few = min(len(touching), num // 2)
  return touching[:few] + free[: num - few]


def _contacts(model: mujoco.MjModel, qpos: np.ndarray) -> list[float]:
  """Distances of the contacts that C MuJoCo finds in a pose, m."""
  data = mujoco.MjData(model)
  data.qpos[:] = qpos
  mujoco.mj_fwdPosition(model, data)
  return list(data.contact.dist)


def _state(data: Any) -> Start:
  qpos, qvel, act = (np.float32(x) for x in (data.qpos, data.qvel, data.act))
  return qpos, qvel, act


@functools.cache
def controls(domain: str) -> np.ndarray:
  """Controls, [STEPS, NUM_STATES, nu] float32."""
  model = TASKS[first_task(domain)].make_model()
  rng = np.random.default_rng(0)
  return rng.uniform(-1, 1, (STEPS, NUM_STATES, model.nu)).astype(np.float32)


@functools.cache
def physics(domain: str) -> MjxPhysics:
  return MjxPhysics(TASKS[first_task(domain)].make_model())


@functools.cache
def physics_step(domain: str) -> Callable[[PhysicsState, np.ndarray], PhysicsState]:
  """MJX's single step of NUM_STATES states under controls [NUM_STATES, nu]."""
  step = physics(domain).step
  return jax.jit(lambda state, ctrl: step(state, ctrl, 1))


@functools.cache
def after_one_step(domain: str) -> PhysicsState:
  """MJX's states one physics step after the starts, under the first controls."""
  return physics_step(domain)(mjx_start(domain), controls(domain)[0])


def mjx_start(domain: str) -> PhysicsState:
  """The starts as MJX's states; of these a step reads the engine's fields alone.

  Written out, because tracing `init` would take as long as all the rest.
  """
  model = physics(domain).model
  qpos, qvel, act = map(jnp.asarray, starts(domain))
  return PhysicsState(
    qpos=qpos,
    qvel=qvel,
    act=act,
    sensordata=jnp.zeros((NUM_STATES, model.nsensordata)),
    num_contacts=jnp.zeros(NUM_STATES, jnp.int32),
    engine={
      'time': jnp.zeros(NUM_STATES),
      'qpos': qpos,
      'qvel': qvel,
      'act': act,
      'qacc_warmstart': jnp.zeros((NUM_STATES, model.nv)),
    },
  )


def current_entries(domain: str) -> np.ndarray:
  """Observations that follow from position and velocity alone."""
  size = MujocoEnvironment(TASKS[first_task(domain)], physics(domain)).observation_size
  return np.delete(np.arange(size), FORCES.get(domain, []))


def put(env: Any, state: Any, index: int) -> None:
  """Puts dm_control into a state, at rest in time as after a reset."""
  with env.physics.reset_context():
    data = env.physics.data
    data.qpos[:], data.qvel[:], data.act[:] = (np.asarray(x[index]) for x in state)


@pytest.mark.parametrize('name', TASKS)
def test_same_state_same_observation_and_reward(name):
  task, env, domain = TASKS[name], load(name), domain_of(name)
  env.reset()
  state, ctrl = after_one_step(domain), controls(domain)[0]
  model = task.make_model()
  ours = np.asarray(task.observe(model, state))
  obs, reward = [], []
  for i in range(NUM_STATES):
    put(env, (state.qpos, state.qvel, state.act), i)
    env.physics.set_control(ctrl[i])
    obs.append(flatten(env.task.get_observation(env.physics)))
    reward.append(env.task.get_reward(env.physics))
  current = current_entries(domain)
  np.testing.assert_allclose(
    ours[:, current], np.stack(obs)[:, current], atol=1e-5, rtol=3e-7
  )
  np.testing.assert_allclose(task.reward(model, state, ctrl), reward, atol=1e-5)


@pytest.mark.parametrize('domain', FORCES)
def test_same_state_same_forces(domain):
  task, env = TASKS[first_task(domain)], load(first_task(domain))
  env.reset()
  obs = []
  for i in range(NUM_STATES):
    put(env, starts(domain), i)
    env.physics.set_control(controls(domain)[0, i])
    env.physics.step()
    obs.append(flatten(env.task.get_observation(env.physics)))
  ours = np.asarray(task.observe(task.make_model(), after_one_step(domain)))
  ours, theirs = ours[:, FORCES[domain]], np.stack(obs)[:, FORCES[domain]]
  # The constraint solver stops in float32 where it is already converged for motion.
  np.testing.assert_allclose(ours, theirs, atol=2e-3, rtol=2e-3)
  assert np.abs(theirs).max() > 1


@pytest.mark.parametrize('domain', DOMAINS)
def test_same_state_same_contacts(domain):
  state = after_one_step(domain)
  model = TASKS[first_task(domain)].make_model()
  theirs = [_contacts(model, qpos) for qpos in np.asarray(state.qpos)]
  # Surfaces that just touch are left out: rounding decides there.
  clear = np.array([all(abs(d) > 1e-6 for d in dist) for dist in theirs])
  assert clear.sum() > NUM_STATES / 2
  touching = np.array([len(dist) > 0 for dist in theirs])
  ours = np.asarray(state.num_contacts)
  np.testing.assert_array_equal(ours[clear] > 0, touching[clear])
  if domain in ('finger', 'ball_in_cup'):  # Their resets reject poses by it.
    assert touching[SAMPLED].any()
    assert not touching[SAMPLED].all()


@pytest.mark.slow
@pytest.mark.parametrize('domain', ['ball_in_cup', 'finger', 'cheetah'])
def test_resets_that_ask_the_engine_draw_the_same_starts_from_it(domain):
  """Rejection of poses in contact (ball, finger) and settling (cheetah).

  What native resets draw is tested by its distribution; the same key draws it here.
  """
  task = TASKS[first_task(domain)]
  states = [
    jax.jit(lambda key, env=env: env.reset(key, 16))(jax.random.key(7))
    for env in (
      MujocoEnvironment(task, physics(domain)),
      MujocoEnvironment(task, NativePhysics(task.make_model())),
    )
  ]
  ours, theirs = (np.asarray(state.physics.qpos) for state in states)
  np.testing.assert_allclose(ours, theirs, atol=2e-5)
  ours, theirs = (np.asarray(s.obs)[:, current_entries(domain)] for s in states)
  np.testing.assert_allclose(ours, theirs, atol=2e-4)
  assert len(np.unique(theirs, axis=0)) == 16


@pytest.mark.parametrize('domain', DOMAINS)
def test_engines_agree_over_ten_steps(domain):
  task = TASKS[first_task(domain)]
  model = task.make_model()
  native = NativePhysics(model)
  theirs, ours = native.init(*starts(domain)), mjx_start(domain)
  advance = physics_step(domain)
  for ctrl in controls(domain):
    theirs = native.step(theirs, ctrl, task.substeps)
    for _ in range(task.substeps):
      ours = advance(ours, ctrl)
    for field, limit in (('qpos', 5e-5), ('qvel', 2e-3), ('act', 1e-6)):
      assert _distance(getattr(ours, field), getattr(theirs, field)) < limit
    assert (
      _distance(
        task.reward(model, ours, ctrl)[:, None],
        task.reward(model, theirs, ctrl)[:, None],
      )
      < 1e-5
    )
    obs = task.observe(model, ours), task.observe(model, theirs)
    current = current_entries(domain)
    assert _distance(obs[0][:, current], obs[1][:, current]) < 2e-3
  assert advance._cache_size() == 1


def _distance(ours: jax.Array, theirs: jax.Array) -> float:
  """Largest difference in settled states, the worst state left out.

  A contact that one engine sees a substep before the other is not an error, and may
  happen once.
  """
  difference = np.abs(np.asarray(ours) - np.asarray(theirs))[SETTLED]
  return float(np.sort(difference.max(axis=-1, initial=0.0))[-2])
