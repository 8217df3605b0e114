"""Evaluation sums the first episode of each environment, and nothing after it."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rlfb_jax.envs.base import EnvState
from rlfb_jax.training import evaluate

LENGTH = 6


@flax.struct.dataclass
class Counter:
  position: jax.Array  # [N]
  end: jax.Array  # [N], the step that terminates the episode.


class CounterEnv:
  """The reward of step t is t + action; episodes terminate at a random step."""

  name = 'counter'
  observation_size = 1
  action_size = 1
  episode_length = LENGTH

  def reset(self, key, num_envs):
    key, end_key = jax.random.split(key)
    end = jax.random.randint(end_key, (num_envs,), 1, LENGTH + 3)
    return self._state(Counter(jnp.zeros(num_envs), end), key)

  def step(self, state, action):
    steps = state.steps + 1
    reward = state.physics.position + action[:, 0]
    terminated = steps == state.physics.end
    done = terminated | (steps >= LENGTH)
    position = jnp.where(done, 0.0, state.physics.position + 1)
    return self._state(state.physics.replace(position=position), state.key).replace(
      env_reward=reward,
      terminated=terminated,
      truncated=done & ~terminated,
      steps=jnp.where(done, 0, steps),
    )

  def pose(self, state):
    return state.physics.position[:, None]

  def _state(self, physics, key):
    obs = physics.position[:, None]
    off = jnp.zeros(obs.shape[0], bool)
    zero = jnp.zeros(obs.shape[0])
    steps = zero.astype(jnp.int32)
    return EnvState(physics, obs, zero, off, off, obs, off, steps, key)


def _act(params, obs):
  return jnp.full_like(obs, params)


def _expected(env, key, num_episodes, action):
  ends = np.asarray(env.reset(key, num_episodes).physics.end)
  assert len(set(ends)) > 3  # Early, late and truncated ones.
  return [sum(t + action for t in range(min(end, LENGTH))) for end in ends]


def test_returns_are_sums_of_the_first_episode():
  env, key = CounterEnv(), jax.random.key(3)
  episodes = jax.jit(lambda p: evaluate.evaluate(env, _act, p, key, 40))(0.5)
  np.testing.assert_allclose(episodes.returns, _expected(env, key, 40, 0.5))


def test_seeds_start_alike_and_differ_by_policy():
  env, key = CounterEnv(), jax.random.key(4)
  actions = jnp.array([0.0, 0.25, 1.0])
  episodes = evaluate.evaluate_seeds(env, _act, actions, key, 30)
  for action, row in zip(np.asarray(actions), episodes.returns, strict=True):
    np.testing.assert_allclose(row, _expected(env, key, 30, action))


def test_episodes_can_be_looked_at_as_they_are_played():
  env, key = CounterEnv(), jax.random.key(5)
  episodes, (positions, rewards) = evaluate.play(
    env,
    _act,
    0.5,
    key,
    20,
    lambda before, action, after: (before.obs, after.env_reward),
  )
  alone = evaluate.evaluate(env, _act, 0.5, key, 20)
  np.testing.assert_array_equal(episodes.returns, alone.returns)
  assert positions.shape == (LENGTH, 20, 1)
  np.testing.assert_array_equal(rewards, positions[..., 0] + 0.5)
  np.testing.assert_array_equal(positions[0], 0.0)


# Of each step and environment: solved early, solved after the episode's end, solved by
# the step that ends it, never.
SOLVED = jnp.array([[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]], bool)
ENDED = jnp.array([[0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]], bool)


class ToldEnv(CounterEnv):
  """Success and ends are told by tables."""

  episode_length = len(SOLVED)

  def __init__(self, tells):
    self._tells = tells

  def reset(self, key, num_envs):
    state = super().reset(key, num_envs)
    return state if self._tells else state.replace(success=None)

  def step(self, state, action):
    return state.replace(
      terminated=ENDED[state.steps[0]],
      success=SOLVED[state.steps[0]] if self._tells else None,
      steps=state.steps + 1,
    )


def test_an_episode_succeeds_at_any_of_its_own_steps():
  key = jax.random.key(0)
  episodes = jax.jit(lambda p: evaluate.evaluate(ToldEnv(True), _act, p, key, 4))(0.5)
  np.testing.assert_array_equal(episodes.success, [True, False, True, False])
  assert evaluate.evaluate(ToldEnv(False), _act, 0.5, key, 4).success is None


def test_a_recording_shows_the_start_and_every_step():
  env = CounterEnv()
  key = next(
    key
    for key in jax.random.split(jax.random.key(0), 20)
    if env.reset(key, 1).physics.end[0] > LENGTH
  )
  poses, rewards = jax.jit(lambda: evaluate.record(env, _act, 0.5, key))()
  np.testing.assert_array_equal(poses[:, 0], np.arange(LENGTH))
  np.testing.assert_array_equal(rewards, np.arange(LENGTH) + 0.5)
