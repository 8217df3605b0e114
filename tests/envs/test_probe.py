"""Probe worlds: each test names the fact that an agent must discover there."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax import envs
from rlfb_jax.envs.probe import PROBES, ProbeEnvironment

N, T = 64, 40
NAMES = [probe.name for probe in PROBES]


def roll(env, policy=lambda obs: jnp.zeros_like(obs)):
  """States before and after each of T steps, leaves [T, N, ...]."""

  def body(state, _):
    after = env.step(state, policy(state.obs))
    return after, (state, after)

  start = env.reset(jax.random.key(0), N)
  return jax.jit(lambda s: jax.lax.scan(body, s, None, length=T)[1])(start)


@pytest.mark.parametrize('name', NAMES)
def test_contract(name):
  env = envs.make(name)
  before, after = roll(env)
  assert before.obs.shape == (T, N, env.observation_size)
  assert env.pose(env.reset(jax.random.key(0), N)).shape == (N, env.pose_size)
  due = np.arange(1, T + 1) % env.episode_length == 0
  ended = after.terminated | after.truncated
  np.testing.assert_array_equal(ended, np.tile(due[:, None], (1, N)))
  assert not (after.terminated & after.truncated).any()
  np.testing.assert_array_equal(after.steps == 0, ended)
  assert after.env_reward.min() >= 0
  assert after.env_reward.max() <= 1
  assert env.max_segment_return == 50


def test_constant_reward_is_one_whatever_is_done():
  env = envs.make('probe_constant')
  before, after = roll(env, lambda obs: obs + 0.7)
  np.testing.assert_array_equal(after.env_reward, 1)
  np.testing.assert_array_equal(before.obs, 0)
  assert after.terminated.all()


def test_observed_reward_is_announced():
  before, after = roll(envs.make('probe_observed'))
  cue = before.obs[..., 0]
  np.testing.assert_array_equal(after.env_reward, (1 + cue) / 2)
  assert set(np.unique(cue)) == {-1, 1}
  assert abs(cue.mean()) < 4 / np.sqrt(cue.size)
  assert after.terminated.all()


def test_delayed_reward_comes_at_the_second_step():
  before, after = roll(envs.make('probe_delayed'))
  second = np.arange(T) % 2 == 1
  want = np.tile(second[:, None], (1, N)).astype(float)
  np.testing.assert_array_equal(after.env_reward, want)
  np.testing.assert_array_equal(before.obs[..., 0], want)
  np.testing.assert_array_equal(after.terminated, want)


@pytest.mark.parametrize(
  ('policy', 'mean'),
  [
    (lambda obs: obs, 1.0),
    (lambda obs: -obs, 0.0),
    (lambda obs: 5 * obs, 1.0),  # Clipped.
    (jnp.ones_like, 0.5),
  ],
)
def test_choice_rewards_actions_that_follow_the_cue(policy, mean):
  env = envs.make('probe_choice')
  before, after = roll(env, policy)
  assert float(after.env_reward.mean()) == pytest.approx(mean, abs=0.05)
  assert not after.terminated.any()
  # The cue is drawn anew within an episode, and what is observed last is a cue too.
  cue = np.asarray(before.obs[..., 0])
  agreement = (cue[1:10] == cue[:9]).mean()
  assert 0.4 < agreement < 0.6
  assert set(np.unique(after.final_obs)) == {-1, 1}


def test_reaching_pays_from_the_step_after_the_action_on():
  env = envs.make('probe_reach')
  before, after = roll(env, lambda obs: -jnp.sign(obs))
  cue = np.asarray(before.obs[..., 0])
  np.testing.assert_allclose(after.env_reward, 1 - np.abs(cue), atol=1e-6)
  going_on = ~np.asarray(after.truncated)
  stepped = (cue - 0.4 * np.sign(cue))[going_on]
  np.testing.assert_allclose(after.obs[..., 0][going_on], stepped, atol=1e-6)
  np.testing.assert_array_equal(np.abs(after.obs[..., 0][~going_on]), 1)
  # The last thing seen is where the point came to, not where the next one starts.
  assert np.abs(np.asarray(after.final_obs)[~going_on]).max() < 0.3
  best = jax.jit(lambda obs: -jnp.clip(obs / 0.4, -1, 1))
  _, after = roll(env, best)
  assert float(after.env_reward[:10].sum(axis=0).mean()) == pytest.approx(8.2, abs=0.01)


def test_seeds_under_vmap_equal_seeds_alone():
  env = ProbeEnvironment(PROBES[3], episode_length=3, action_size=2)
  keys = jax.random.split(jax.random.key(1), 3)

  def run(key):
    def body(state, _):
      state = env.step(state, jnp.ones((5, 2)))
      return state, state

    return jax.lax.scan(body, env.reset(key, 5), None, length=7)[1]

  together = jax.vmap(run)(keys)
  for i in range(3):
    alone = run(keys[i])
    chex.assert_trees_all_equal(jax.tree.map(lambda x, i=i: x[i], together), alone)
  obs = np.asarray(together.obs)
  assert (obs[0] != obs[1]).any()


def test_refusals():
  with pytest.raises(ValueError, match='episode_length=0 must be at least 1'):
    ProbeEnvironment(PROBES[0], episode_length=0)
  with pytest.raises(ValueError, match='action_size=0 must be at least 1'):
    ProbeEnvironment(PROBES[0], action_size=0)
