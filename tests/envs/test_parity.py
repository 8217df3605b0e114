"""Whole episodes beside dm_control's: same observations, rewards and length.

C MuJoCo is stepped to the same bits as dm_control's, so that nothing drifts apart
over an episode, however chaotic; what is left is the rounding to float32.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from suite_reference import (
  TASKS,
  flatten,
  integration_state,
  load,
  start_moving,
  swinging_actions,
)

from rlfb_jax.envs.base import EnvState
from rlfb_jax.envs.environment import MujocoEnvironment
from rlfb_jax.envs.make import make

pytestmark = pytest.mark.optimised

STEPS = 1000
SEEDS = (0, 1)
TRAJECTORIES = 2 * len(SEEDS)
TOLERANCE = {'atol': 1e-5, 'rtol': 3e-7}  # The second is float32's own.
ALPHA = 1e-5


@functools.cache
def environment(name: str) -> MujocoEnvironment:
  env = make(name, engine='native')
  assert isinstance(env, MujocoEnvironment)
  return env


@functools.cache
def reset(name: str, num_envs: int) -> EnvState:
  return jax.jit(lambda key: environment(name).reset(key, num_envs))(jax.random.key(7))


def actions(kind: str, seed: int, env: MujocoEnvironment) -> np.ndarray:
  """Actions of one episode, [STEPS, da] float32, all powers of two but for signs.

  With these the map to control ranges rounds but once, hence alike in a compiled
  program (which may fuse the product and the sum) and outside.
  """
  rng = np.random.default_rng(seed)
  if kind == 'random':
    action = rng.uniform(-1, 1, (STEPS, env.action_size))
  else:
    action = swinging_actions(rng, STEPS, env.action_size, env.control_timestep)
  power = np.exp2(np.round(np.log2(np.maximum(np.abs(action), 2**-8))))
  return (np.sign(action) * power).astype(np.float32)


def dm_control_episode(
  name: str, seed: int, kind: str, ctrl: np.ndarray
) -> dict[str, np.ndarray]:
  """One episode of dm_control's environment under given controls [STEPS, nu]."""
  env = load(name, seed)
  first = env.reset()
  if kind == 'moving':
    start_moving(name, env.physics, np.random.default_rng(seed))
  start = integration_state(env)
  time_steps = [env.step(c) for c in ctrl.astype(np.float64)]
  return {
    'first': flatten(first.observation),
    'start': start,
    'obs': np.stack([flatten(t.observation) for t in time_steps]),
    'reward': np.array([t.reward for t in time_steps]),
    'last': np.array([t.last() for t in time_steps]),
  }


@functools.cache
def episodes(name: str) -> tuple[dict[str, np.ndarray], EnvState]:
  """The same episodes by dm_control and by ours, both [TRAJECTORIES, ...]."""
  env = environment(name)
  runs = [(seed, kind) for seed in SEEDS for kind in ('random', 'moving')]
  action = np.stack([actions(kind, seed, env) for seed, kind in runs])
  ctrl = np.asarray(env.to_ctrl(action))
  theirs = [
    dm_control_episode(name, seed, kind, c)
    for (seed, kind), c in zip(runs, ctrl, strict=True)
  ]
  stacked = {k: np.stack([t[k] for t in theirs]) for k in theirs[0]}

  @jax.jit
  def run(state: EnvState, action: jax.Array) -> EnvState:
    def step(state: EnvState, action: jax.Array) -> tuple[EnvState, Any]:
      state = env.step(state, action)
      return state, state.replace(physics=None, key=None)

    return jax.lax.scan(step, state, action)[1]

  state = reset(name, TRAJECTORIES)
  engine = env.physics.from_integration_state(stacked['start'])
  state = state.replace(physics=state.physics.replace(engine=engine))
  ours = run(state, jnp.swapaxes(action, 0, 1))
  return stacked, jax.tree.map(lambda x: np.swapaxes(x, 0, 1), ours)


@pytest.mark.parametrize('name', TASKS)
def test_observations_over_whole_episodes(name):
  theirs, ours = episodes(name)
  np.testing.assert_allclose(ours.final_obs, theirs['obs'], **TOLERANCE)
  # The comparison means something only where the bodies really move.
  assert np.abs(theirs['obs']).max() > 3
  assert (theirs['obs'].std(axis=(0, 1)) > 1e-3).all()


@pytest.mark.parametrize('name', TASKS)
def test_rewards_over_whole_episodes(name):
  theirs, ours = episodes(name)
  np.testing.assert_allclose(ours.env_reward, theirs['reward'], **TOLERANCE)
  assert theirs['reward'].max() > 0.5
  assert np.ptp(theirs['reward']) > 0.3


@pytest.mark.parametrize('name', TASKS)
def test_episodes_end_by_time_alone_after_1000_steps(name):
  theirs, ours = episodes(name)
  np.testing.assert_array_equal(ours.truncated, theirs['last'])
  assert ours.truncated[:, -1].all()
  assert not ours.terminated.any()
  # A fresh episode has begun by then, elsewhere than where the old one ended.
  assert (np.abs(ours.obs[:, -1] - ours.final_obs[:, -1]).max(axis=-1) > 1e-2).all()


@pytest.mark.parametrize('name', TASKS)
def test_first_observations(name):
  env = environment(name)
  theirs, qpos, qvel, act = [], [], [], []
  reference = load(name, seed=5)
  for _ in range(20):
    theirs.append(flatten(reference.reset().observation))
    data = reference.physics.data
    qpos.append(data.qpos.copy())
    qvel.append(data.qvel.copy())
    act.append(data.act.copy())
  start = (np.stack(x).astype(np.float32) for x in (qpos, qvel, act))

  @jax.jit
  def observe(qpos: jax.Array, qvel: jax.Array, act: jax.Array) -> jax.Array:
    physics = env.physics.init(qpos, qvel, act)
    return env.reset_to(jax.random.key(0), physics).obs

  # Starts pass through float32, and accelerations amplify what they lose.
  np.testing.assert_allclose(observe(*start), np.stack(theirs), atol=3e-5, rtol=1e-6)


def _same_distribution(ours: np.ndarray, theirs: np.ndarray) -> float:
  """p-value of the two-sample Kolmogorov-Smirnov test, rounding set aside."""
  return stats.ks_2samp(np.round(ours, 4), np.round(theirs, 4)).pvalue


@pytest.mark.parametrize('name', TASKS)
def test_reset_distribution(name):
  reference = load(name, seed=11)
  theirs = []
  for _ in range(400):
    reference.reset()
    data = reference.physics.data
    theirs.append(np.concatenate([data.qpos, data.qvel, data.act, [data.ncon]]))
  theirs = np.stack(theirs)
  physics = reset(name, 1000).physics
  ours = np.concatenate(
    [physics.qpos, physics.qvel, physics.act, physics.num_contacts[:, None]], axis=-1
  )
  for i in range(ours.shape[1]):
    assert _same_distribution(ours[:, i], theirs[:, i]) > ALPHA, f'coordinate {i}'
  # Joint distribution: projections on random directions see dependence too.
  scale = theirs.std(axis=0) + 1e-3
  directions = (
    np.random.default_rng(0).normal(size=(ours.shape[1], 20)) / scale[:, None]
  )
  for direction in directions.T:
    assert _same_distribution(ours @ direction, theirs @ direction) > ALPHA
