"""Brax's own environments, and a toy with every ending, behind our contract."""

import brax.envs
import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brax.envs.fast import Fast

from rlfb_jax.envs.adapter import AdaptedEnvironment

N = 3


@flax.struct.dataclass
class ToyState:
  place: jax.Array
  obs: jax.Array
  reward: jax.Array
  done: jax.Array
  info: dict
  metrics: dict


class Toy:
  """Walks by its action: ends beyond 1 (goal), is cut below -1, breaks beyond 3."""

  action_size = 1

  def reset(self, rng):
    return self._state(jax.random.uniform(rng, maxval=0.1), jnp.array(0.0))

  def step(self, state, action):
    return self._state(state.place + action[0], 1.0)

  def _state(self, place, reward):
    broken = place > 3
    return ToyState(
      place=place,
      obs=jnp.where(broken, jnp.nan, place) * jnp.ones(2),
      reward=reward,
      done=(jnp.abs(place) > 1).astype(jnp.float32),
      info={'truncation': (place < -1).astype(jnp.float32)},
      metrics={'success': (place > 1).astype(jnp.float32)},
    )


def toy(**options):
  return AdaptedEnvironment(Toy(), 'toy', episode_length=4, **options)


def start(env, places, steps):
  state = env.reset(jax.random.key(0), len(places))
  physics = state.physics.replace(place=jnp.asarray(places, jnp.float32))
  return state.replace(physics=physics, steps=jnp.asarray(steps, jnp.int32))


def test_every_ending_and_the_fresh_start_after_it():
  env = toy()
  #            goes on, goal, cut, time is up, goal as time is up, breaks
  places = [0.0, 0.9, -0.9, 0.0, 0.9, 2.9]
  state = start(env, places, [0, 1, 1, 3, 3, 1])
  action = jnp.array([[0.5], [0.5], [-0.5], [0.5], [0.5], [0.5]])
  after = jax.jit(env.step)(state, action)
  np.testing.assert_array_equal(after.terminated, [0, 1, 0, 0, 1, 0])
  np.testing.assert_array_equal(after.truncated, [0, 0, 1, 1, 0, 1])
  np.testing.assert_array_equal(after.success, [0, 1, 0, 0, 1, 0])
  np.testing.assert_array_equal(after.steps, [1, 0, 0, 0, 0, 0])
  np.testing.assert_array_equal(after.env_reward, [1, 1, 1, 1, 1, 0])
  want = np.array([0.5, 1.4, -1.4, 0.5, 1.4, state.obs[5, 0]])
  np.testing.assert_allclose(after.final_obs[:, 0], want, rtol=1e-6)
  fresh = np.asarray(after.obs[1:, 0])
  assert (fresh >= 0).all()
  assert (fresh < 0.1).all()
  assert len(np.unique(fresh)) == 5
  assert after.obs[0, 0] == 0.5
  np.testing.assert_array_equal(after.physics.place, after.obs[:, 0])
  np.testing.assert_array_equal(env.pose(after), after.obs)


def test_actions_are_clipped():
  env = toy()
  state = start(env, [0.0, 0.0, 0.5], [0, 0, 0])
  after = env.step(state, jnp.array([[-9.0], [0.25], [jnp.nan]]))
  np.testing.assert_array_equal(after.final_obs[:, 0], [-1, 0.25, 0.5])


def test_seeds_under_vmap_equal_seeds_alone():
  env = toy(pose=lambda physics: physics.place[:, None])
  assert env.pose_size == 1

  def run(key):
    def body(state, action):
      state = env.step(state, action)
      return state, state

    actions = jax.random.uniform(jax.random.key(1), (9, N, 1), minval=-1.0)
    return jax.lax.scan(body, env.reset(key, N), actions)[1]

  keys = jax.random.split(jax.random.key(0), 2)
  together = jax.jit(jax.vmap(run))(keys)
  assert together.terminated.any()
  alone = jax.jit(run)
  for i in range(2):
    mine = jax.tree.map(lambda x, i=i: x[i], together)
    chex.assert_trees_all_equal(mine, alone(keys[i]))


def test_brax_fast():
  env = AdaptedEnvironment(Fast(), 'fast', episode_length=5)
  assert (env.observation_size, env.action_size) == (2, 1)
  state = env.reset(jax.random.key(0), N)
  step = jax.jit(chex.assert_max_traces(env.step, n=1))
  for _ in range(5):
    state = step(state, jnp.array([[1.0], [-1.0], [1.0]]))
  # Speed grows by 0.02 a step where the action is positive.
  np.testing.assert_allclose(state.final_obs[:, 1], [0.1, 0, 0.1], rtol=1e-5)
  assert state.truncated.all()
  np.testing.assert_array_equal(state.obs, 0)
  np.testing.assert_array_equal(state.steps, 0)


def test_brax_inverted_pendulum_falls_and_stands_up_again():
  env = AdaptedEnvironment(
    brax.envs.get_environment('inverted_pendulum'), 'inverted_pendulum', 100
  )

  def body(state, _):
    state = env.step(state, jnp.ones((N, 1)))
    return state, state

  start = env.reset(jax.random.key(0), N)
  states = jax.jit(lambda s: jax.lax.scan(body, s, None, length=40)[1])(start)
  fell = np.asarray(states.terminated)
  assert fell.any(axis=0).all()
  assert not states.truncated.any()
  angle, final = np.asarray(states.obs[..., 1]), np.asarray(states.final_obs[..., 1])
  assert (np.abs(final[fell]) > 0.2).all()
  assert (np.abs(final[~fell]) <= 0.2).all()
  assert (np.abs(angle[fell]) <= 0.01).all()
  assert len(np.unique(angle[fell])) == fell.sum()  # Never the same start.


def test_refusals():
  with pytest.raises(ValueError, match='episode_length=0 must be at least 1'):
    AdaptedEnvironment(Toy(), 'toy', episode_length=0)
  with pytest.raises(ValueError, match='only one vector can be adapted'):
    AdaptedEnvironment(Fast(obs_mode='dict_state'), 'fast')

  class Forgetful(Toy):
    def reset(self, rng):
      return super().reset(rng).replace(info={})

  env = AdaptedEnvironment(Forgetful(), 'forgetful')
  state = env.reset(jax.random.key(0), N)
  with pytest.raises(ValueError, match='make `reset` return every field'):
    env.step(state, jnp.zeros((N, 1)))
