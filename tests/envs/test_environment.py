"""Episodes: when they end, what follows, and what stays hidden from each other."""

import functools

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from rlfb_jax import envs
from rlfb_jax.envs.base import Task
from rlfb_jax.envs.environment import MujocoEnvironment
from rlfb_jax.physics.mjx import MjxPhysics
from rlfb_jax.physics.native import NativePhysics

# A cart between two walls; the second actuator has an uneven range.
XML = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <body>
      <joint name="x" type="slide" axis="1 0 0" damping="1"/>
      <joint name="y" type="slide" axis="0 1 0" damping="1"/>
      <geom size=".1" mass="1"/>
    </body>
    <geom name="wall" type="box" pos="1 0 0" size=".5 9 1"/>
  </worldbody>
  <actuator>
    <motor joint="x" ctrllimited="true" ctrlrange="-1 1"/>
    <motor joint="y" ctrllimited="true" ctrlrange="-1 5"/>
    <motor joint="y" gear="0"/>
  </actuator>
</mujoco>
"""
N, LENGTH = 4, 7


def sample_reset(key, model, num_envs):
  qpos = jax.random.uniform(key, (num_envs, model.nq), minval=-1.0, maxval=1.0)
  zeros = jnp.zeros((num_envs, model.nv))
  return qpos, zeros, jnp.zeros((num_envs, 0))


def make_task(**changes):
  fields = {
    'name': 'cart',
    'make_model': lambda: mujoco.MjModel.from_xml_string(XML),
    'substeps': 2,
    'sample_reset': sample_reset,
    'observe': lambda m, p: jnp.concatenate([p.qpos, p.qvel], axis=-1),
    'reward': lambda m, p, ctrl: ctrl[:, 0] + 10 * ctrl[:, 1],
    'episode_length': LENGTH,
  }
  return Task(**{**fields, **changes})


def make_env(**changes):
  task = make_task(**changes)
  return MujocoEnvironment(task, NativePhysics(task.make_model(), num_threads=1))


@pytest.fixture(scope='module')
def env():
  return make_env()


@functools.partial(jax.jit, static_argnums=(0, 2))
def reset(env, key, num_envs):
  return env.reset(key, num_envs)


@functools.partial(jax.jit, static_argnums=0)
def step(env, state, action):
  return env.step(state, action)


@functools.partial(jax.jit, static_argnums=0)
def roll(env, state, actions):
  """All states of an episode, leaves [T, N, ...]."""

  def body(state, action):
    state = env.step(state, action)
    return state, state

  return jax.lax.scan(body, state, actions)[1]


def actions(length, *lead, size=3, seed=0):
  return jax.random.uniform(
    jax.random.key(seed), (length, *lead, size), minval=-1.5, maxval=1.5
  )


def test_sizes(env):
  assert (env.observation_size, env.action_size, env.pose_size) == (4, 3, 4)
  assert env.control_timestep == pytest.approx(0.02)
  state = reset(env, jax.random.key(0), N)
  assert state.obs.shape == (N, 4)
  np.testing.assert_array_equal(env.pose(state), state.obs)


def test_actions_are_clipped_and_spread_over_each_range(env):
  raw = jnp.array([[-2.0, -1.0, 0.3], [0.3, 0.5, -7.0], [1.5, 9.0, jnp.nan]])
  want = [[-1, -1, 0.3], [np.float32(0.3), 3.5, -1], [1, 5, 0]]
  np.testing.assert_allclose(env.to_ctrl(raw), want, rtol=1e-6)
  np.testing.assert_array_equal(env.to_ctrl(raw)[1, 0], raw[1, 0])  # To the bit.
  state = reset(env, jax.random.key(0), 3)
  reward = step(env, state, raw).env_reward
  np.testing.assert_allclose(reward, [-11, 35.3, 51], rtol=1e-6)


def test_episodes_end_by_time_and_start_afresh(env):
  start = reset(env, jax.random.key(0), N)
  states = roll(env, start, actions(3 * LENGTH, N))
  due = np.arange(1, 3 * LENGTH + 1) % LENGTH == 0
  np.testing.assert_array_equal(states.truncated, np.tile(due[:, None], (1, N)))
  assert not states.terminated.any()
  assert states.success is None
  clock = np.arange(1, 3 * LENGTH + 1) % LENGTH
  np.testing.assert_array_equal(states.steps, np.tile(clock[:, None], (1, N)))
  same = (states.final_obs == states.obs).all(axis=-1)
  np.testing.assert_array_equal(same, ~states.truncated)
  starts = states.obs[due].reshape(-1, 4)
  np.testing.assert_array_equal(starts[:, 2:], 0)  # At rest again,
  assert len(np.unique(starts[:, 0])) == 3 * N  # each somewhere else.
  assert (np.abs(states.final_obs[due][..., 2:]) > 0).all()


def test_only_the_rows_that_ended_are_reset(env):
  start = reset(env, jax.random.key(0), N)
  start = start.replace(steps=jnp.array([0, LENGTH - 1, 2, LENGTH - 1]))
  action = actions(1, N)[0]
  after = step(env, start, action)
  plain = env.physics.step(start.physics, env.to_ctrl(action), env.task.substeps)
  ended = np.array([False, True, False, True])
  np.testing.assert_array_equal(after.truncated, ended)
  np.testing.assert_array_equal(after.steps, [1, 0, 3, 0])
  for x, y in zip(jax.tree.leaves(after.physics), jax.tree.leaves(plain), strict=True):
    np.testing.assert_array_equal(x[~ended], y[~ended])
    if x.size and not np.array_equal(x, y):
      assert (np.asarray(x[ended]) != np.asarray(y[ended])).any()
  np.testing.assert_array_equal(after.final_obs[:, :2], plain.qpos)


def test_the_last_observation_and_reward_precede_the_reset(env):
  long = make_env(episode_length=10 * LENGTH)
  start = reset(env, jax.random.key(3), N)
  acts = actions(LENGTH + 2, N)[:LENGTH]
  ours, without = roll(env, start, acts), roll(long, start, acts)
  np.testing.assert_array_equal(ours.final_obs, without.obs)
  np.testing.assert_array_equal(ours.env_reward, without.env_reward)


def test_seeds_under_vmap_equal_seeds_alone(env):
  keys = jax.random.split(jax.random.key(5), 3)
  acts = actions(LENGTH + 2, 3, N)
  starts = jax.vmap(lambda k: reset(env, k, N))(keys)
  # Their episodes end at different times.
  starts = starts.replace(steps=starts.steps + jnp.array([0, 1, 4])[:, None])
  together = jax.vmap(lambda s, a: roll(env, s, a), in_axes=(0, 1))(starts, acts)
  assert together.truncated.any(axis=(1, 2)).all()
  for i in range(3):
    alone = roll(env, jax.tree.map(lambda x, i=i: x[i], starts), acts[:, i])
    chex.assert_trees_all_equal(jax.tree.map(lambda x, i=i: x[i], together), alone)


def test_resets_run_only_when_due():
  draws = []

  def sample(key, model, num_envs):
    qpos, qvel, act = sample_reset(key, model, num_envs)

    def note(x):
      return (draws.append(np.shape(x)), np.asarray(x))[1]

    qpos = jax.pure_callback(note, qpos, qpos, vmap_method='broadcast_all')
    return qpos, qvel, act

  env = make_env(sample_reset=sample)
  keys = jax.random.split(jax.random.key(0), 2)
  starts = jax.vmap(lambda k: env.reset(k, N))(keys)
  jax.block_until_ready(starts)
  draws.clear()
  run = jax.jit(jax.vmap(lambda s, a: roll(env, s, a), in_axes=(0, 1)))
  jax.block_until_ready(run(starts, actions(2 * LENGTH, 2, N)))
  assert draws == [(2, N, 2)] * 2  # Twice in 14 steps, both seeds at once.


def test_rejected_starts_are_drawn_again():
  env = make_env(accept_reset=lambda physics: physics.num_contacts == 0)
  state = env.reset(jax.random.key(0), 256)
  x = np.asarray(state.physics.qpos[:, 0])
  assert (x <= 0.4).all()  # The wall begins at 0.5, the ball has radius 0.1.
  np.testing.assert_array_equal(state.physics.num_contacts, 0)
  # Among themselves still uniform: rejection must not favour late draws.
  assert abs(x.mean() - (-0.3)) < 4 * (1.4 / np.sqrt(12 * 256))
  assert x.min() < -0.95
  assert x.max() > 0.3
  blocked = make_env(accept_reset=lambda physics: physics.qpos[:, 0] > 2)
  start = blocked.reset(jax.random.key(0), 1)  # Gives up instead of hanging.
  chex.assert_tree_all_finite((start.physics.qpos, start.obs))


def test_settling_runs_without_control():
  env = make_env(settle_substeps=5)
  state = env.reset(jax.random.key(0), N)
  np.testing.assert_allclose(np.asarray(state.physics.engine).view(float)[:, 0], 0.05)
  np.testing.assert_array_equal(state.steps, 0)


def test_reset_to_continues_from_saved_physics(env):
  start = reset(env, jax.random.key(0), N)
  acts = actions(4, N)
  states = roll(env, start, acts)
  saved = jax.tree.map(lambda x: x[1], states.physics)
  again = roll(env, env.reset_to(jax.random.key(9), saved), acts[2:])
  chex.assert_trees_all_equal(
    again.physics, jax.tree.map(lambda x: x[2:], states.physics)
  )
  np.testing.assert_array_equal(again.steps[0], 1)


def test_a_diverged_simulation_is_contained(env, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to a file.
  start = step(env, reset(env, jax.random.key(0), N), actions(1, N)[0])
  engine = np.array(start.physics.engine)
  engine.view(np.float64)[2, 1] = np.nan
  broken = start.replace(physics=start.physics.replace(engine=jnp.asarray(engine)))
  action = actions(1, N, seed=1)[0]
  after, healthy = step(env, broken, action), step(env, start, action)
  np.testing.assert_array_equal(after.truncated, [False, False, True, False])
  assert not after.terminated.any()
  assert after.env_reward[2] == 0
  assert after.steps[2] == 0
  np.testing.assert_array_equal(after.final_obs[2], start.obs[2])
  chex.assert_tree_all_finite((after.obs, after.physics.qpos, after.env_reward))
  rest = np.array([0, 1, 3])
  for name in ('obs', 'env_reward', 'steps', 'final_obs'):
    np.testing.assert_array_equal(
      getattr(after, name)[rest], getattr(healthy, name)[rest]
    )
  assert jnp.isfinite(step(env, after, action).obs).all()


def test_keys_are_used_once(env):
  with jax.debug_key_reuse(True):
    state = jax.jit(lambda k: env.reset(k, N))(jax.random.key(0))
    jax.jit(env.step)(state, actions(1, N)[0])


def test_a_second_step_compiles_nothing(env):
  once = jax.jit(chex.assert_max_traces(env.step, n=1))
  state = reset(env, jax.random.key(0), N)
  for action in actions(3, N):
    state = once(state, action)


def test_make_by_name():
  assert len(envs.task_names()) == 10
  env = envs.make('walker_walk', engine='native', num_threads=1)
  assert (env.name, env.observation_size, env.action_size) == ('walker_walk', 24, 6)
  assert env.episode_length == 1000
  assert env.control_timestep == pytest.approx(0.025)
  assert env.max_segment_return == 50
  assert envs.make('probe_choice').name == 'probe_choice'


@pytest.mark.parametrize(
  ('backend', 'engine'),
  [('cpu', NativePhysics), ('gpu', MjxPhysics), ('tpu', MjxPhysics)],
)
def test_left_to_itself_the_engine_is_native_on_cpu_and_mjx_elsewhere(
  backend, engine, monkeypatch
):
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  assert type(envs.make('cartpole_balance').physics) is engine
  # Who names one gets it, wherever JAX computes.
  assert type(envs.make('cartpole_balance', 'native').physics) is NativePhysics


def test_episodes_are_as_long_as_they_are_made():
  probe = envs.make('probe_choice', episode_length=3)
  assert probe.episode_length == 3
  env = envs.make('cartpole_balance', 'native', num_threads=1, episode_length=2)
  step, state = jax.jit(env.step), reset(env, jax.random.key(0), N)
  for truncated in (False, True, False, True):
    state = step(state, jnp.zeros((N, 1)))
    assert bool(state.truncated.all()) == bool(state.truncated.any()) == truncated


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    ({'name': 'walker_wlak'}, 'did you mean walker_walk'),
    ({'name': 'probe_choise'}, 'did you mean probe_choice'),
    ({'name': 'walker_walk', 'engine': 'warp'}, 'engine=warp is not one of auto'),
    ({'name': 'walker_walk', 'solver': 'slow'}, 'solver=slow is not one of bench'),
    ({'name': 'walker_walk', 'episode_length': 0}, 'episode_length=0 must be at'),
    ({'name': 'walker_walk', 'num_threads': -1}, 'num_threads=-1 must be at least 0'),
  ],
)
def test_refusals(args, message):
  with pytest.raises(ValueError, match=message):
    envs.make(**args)
