"""What agents with a replay buffer are paid, and what they learn from it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax import envs, methods
from rlfb_jax.reward.model import make_reward_model
from rlfb_jax.training.loop import seed_keys
from rlfb_jax.training.program import compile_algorithm
from tests.methods.probe_runs import (
  ScrambledReward,
  compilations,
  make_config,
  run,
  run_shown_and_scrambled,
)

SHORT = {'run': {'total_env_steps': 640}}


def test_relabelled_rewards_are_those_of_the_newest_model():
  config = make_config('pebble', **SHORT)
  env = envs.make('probe_choice')
  algorithm = methods.make(config, env)
  functions = compile_algorithm(algorithm)
  state = functions.init(seed_keys(0, 1))
  for name in ('random', 'explore'):
    state, _ = functions.chunks[name](state)
  request = algorithm.request(160)
  wanted = jax.tree.map(jnp.int32, request.wanted)
  state, _ = functions.session(state, wanted, request.strategies)
  rows = state.replay.rows[0, :160]
  model = make_reward_model(config.reward, 1, env.action_size)
  one = jax.tree.map(lambda x: x[0], state.feedback.reward_model)
  expected = model.r_hat_members(one, rows[:, :1], rows[:, 1 : 1 + env.action_size])
  np.testing.assert_allclose(state.replay.rewards[0, :160], expected.T, atol=1e-5)


def test_nothing_compiles_after_the_first_of_each():
  config = make_config('mrn', **SHORT)
  algorithm = methods.make(config, envs.make('probe_choice'))
  functions = compile_algorithm(algorithm)
  state = functions.init(seed_keys(0, 2))

  def everything(state):
    for chunk in functions.chunks.values():
      state, _ = chunk(state)
    request = algorithm.request(320)
    wanted = jax.tree.map(jnp.int32, request.wanted)
    state, _ = functions.session(state, wanted, request.strategies)
    for event in functions.events.values():
      state, _ = event(state)
    return jax.block_until_ready(state)

  before = jax.tree.leaves((state.replay, state.feedback.archive))
  with compilations() as first:
    state = everything(state)
  # Between programs what is large is there once; inside of them see the next test.
  assert all(leaf.is_deleted() for leaf in before)
  with compilations() as second:
    everything(state)
  # Three phases, two events, and a session that chooses and then learns.
  assert len(first) >= 7
  assert not second


@pytest.mark.parametrize('num_seeds', [1, 3])
def test_chunks_take_the_memory_that_is_told_before(num_seeds):
  """One seed's buffer is written in place; on CPU several are copied in a chunk."""
  changes = {
    'run': {'total_env_steps': 640, 'num_seeds': num_seeds},
    'replay': {'capacity': 1_000_000},  # Beside it everything else is small.
  }
  config, env = make_config('pebble', **changes), envs.make('probe_choice')
  functions = compile_algorithm(methods.make(config, env))
  state = jax.eval_shape(functions.init, seed_keys(0, num_seeds))
  held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.replay))
  buffer, copies = held / num_seeds, 0
  if num_seeds > 1 and jax.default_backend() == 'cpu':
    copies = num_seeds + 1  # Of all, and of the one whose turn it is.
  for chunk in functions.chunks.values():
    memory = chunk.lower(state).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= held
    # Rewards are two sevenths of a buffer.
    np.testing.assert_allclose(memory.temp_size_in_bytes / buffer, copies, atol=0.2)
  told = methods.memory_needed(config, env).total
  np.testing.assert_allclose(told / buffer, num_seeds + copies, rtol=0.02)


@pytest.mark.parametrize(
  'method', ['mrn+kl/both', 'pref_ppo', 'pebble+surf,rune', 'mrn@ddpg']
)
def test_scrambling_the_reward_for_everyone_but_the_teacher_changes_nothing(method):
  config = make_config(method, **SHORT)
  learned, returns = [], []
  for state, rows in run_shown_and_scrambled(
    config, teacher_reward=ScrambledReward.truth
  ):
    stored = getattr(state, 'replay', None)  # PPO keeps no buffer.
    learned.append(jax.device_get((state.agent, state.feedback.reward_model, stored)))
    returns.append(rows[-1]['episode_return'])
  chex.assert_trees_all_equal(*learned)
  assert (returns[0] != returns[1]).any()


@pytest.mark.parametrize(
  ('task', 'level'), [('probe_choice', 8.0), ('probe_reach', 7.0)]
)
def test_pebble_with_many_labels_reaches_what_sac_earns(task, level):
  """Ten steps, at best 1 each; half of that by chance, and less where actions pay late.

  Where a point is to be brought to the middle, values must reach beyond a step.
  """
  steps = {'run': {'task': task, 'total_env_steps': 3200}}
  _, sac = run(make_config('sac', **steps))
  pairs = {'label_budget': 240, 'labels_per_session': 60, 'session_interval': 400}
  reward = {'max_passes': 60, 'learning_rate': 3e-3}
  _, pebble = run(make_config('pebble', pairs=pairs, reward=reward, **steps))
  goal = sac[-1]['episode_return'].mean()
  assert goal > level
  assert pebble[-1]['episode_return'].mean() > goal - 1.0
