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
  # Written over in place: what is large is there once.
  assert all(leaf.is_deleted() for leaf in before)
  with compilations() as second:
    everything(state)
  # Three phases, two events, and a session that chooses and then learns.
  assert len(first) >= 7
  assert not second


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
