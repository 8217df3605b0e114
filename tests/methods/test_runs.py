"""Whole runs: learning, budgets, compilations, seeds, containment."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax import envs, methods
from rlfb_jax.methods.algorithm import PerKind
from rlfb_jax.training.loop import seed_keys, train
from rlfb_jax.training.program import compile_algorithm
from tests.methods.probe_runs import (
  ScrambledReward,
  assert_reward_quality_is_reported,
  compilations,
  make_config,
  run,
)

LONG = {'run': {'total_env_steps': 160 * 60}, 'ppo': {'num_epochs': 6}}


@pytest.mark.parametrize('method', ['ppo', 'rbrl'])
def test_learns_the_choice_world(method):
  """Ten steps, at best 1 each, about half of that by chance."""
  rating = {'num_classes': 4, 'max_return': 5.0}
  feedback = {'label_budget': 240, 'labels_per_session': 60, 'session_interval': 640}
  reward = {'max_passes': 60, 'learning_rate': 3e-3}
  config = make_config(method, rating=rating, feedback=feedback, reward=reward, **LONG)
  _, rows = run(config)
  first = rows[1]['episode_return'].mean()
  last = rows[-1]['episode_return'].mean()
  assert last > first + 1.0, (first, last)


@functools.cache
def finished_rbrl():
  """One run of two seeds, shared by the tests below."""
  return run(make_config('rbrl'))


def test_the_budget_is_asked_for_and_no_more():
  state, rows = finished_rbrl()
  asked = [r['labels_asked'][0] for r in rows if 'labels_asked' in r]
  assert asked == [24, 48, 60]
  assert int(state.feedback.answers.ratings.count[0]) == 60
  counts = [r['class_counts'][0].sum() for r in rows if 'class_counts' in r]
  assert counts == [24, 48, 60]


def test_the_reward_of_ratings_is_judged_once_somebody_has_been_asked():
  assert_reward_quality_is_reported(finished_rbrl()[1])


def test_people_are_shown_what_was_seen_and_done():
  """Observations before the policy's normalisation, and actions after its squash."""
  state, _ = finished_rbrl()
  clip = state.feedback.answers.ratings.clip
  assert set(np.unique(clip.obs)) == {-1.0, 1.0}
  assert float(jnp.abs(state.agent.statistics.mean).max()) > 1e-3
  assert 0.5 < float(jnp.abs(clip.action).max()) < 1.0


def test_each_phase_is_one_program_and_so_is_the_fit_however_clips_are_chosen():
  algorithm = methods.make(make_config('rbrl_kl'), envs.make('probe_choice'))
  functions = compile_algorithm(algorithm)
  state = functions.init(seed_keys(0, 2))
  state, _ = functions.chunks['explore'](state)
  counts, heads_kept = [], []
  with compilations() as seen:
    for wanted, by in ((24, 'uniform'), (24, 'disagreement'), (12, 'disagreement')):
      request = PerKind(jnp.int32(wanted), jnp.int32(0))
      before = jax.device_get(state.agent)
      state, _ = functions.session(state, request, PerKind(by, ''))
      # The policy is no business of a session, nor is what Adam remembers.
      *hidden, head = state.agent.params.critic
      *hidden_before, head_before = before.params.critic
      chex.assert_trees_all_equal(hidden, hidden_before)
      chex.assert_trees_all_equal(state.agent.params.actor, before.params.actor)
      chex.assert_trees_all_equal(state.agent.optimizer, before.optimizer)
      heads_kept.append(bool(jnp.all(head.kernel == head_before.kernel)))
      state, _ = jax.block_until_ready(functions.chunks['learn'](state))
      counts.append(len(seen))
  # The first has all to compile; the second what chooses clips, and nothing else.
  assert np.diff(counts).tolist() == [1, 0]
  for _ in range(2):
    state, _ = functions.chunks['explore'](state)
  assert {name: f._cache_size() for name, f in functions.chunks.items()} == {
    'explore': 1,
    'learn': 1,
  }
  # What the critic learned of novelty is forgotten, what it learned of rewards is not.
  assert heads_kept == [False, True, True]


def test_a_seed_among_many_is_the_run_of_that_seed_alone():
  config = make_config('rbrl_kl', run={'total_env_steps': 480})
  many, _ = run(config, num_seeds=3)
  alone_config = make_config('rbrl_kl', run={'total_env_steps': 480, 'seed': 2})
  alone, _ = run(alone_config, num_seeds=1)
  pick = lambda tree, i: jax.tree.map(lambda x: x[i], tree)  # noqa: E731
  np.testing.assert_array_equal(
    many.feedback.answers.ratings.rating[2], alone.feedback.answers.ratings.rating[0]
  )
  chex.assert_trees_all_close(
    pick(many.agent.params, 2), pick(alone.agent.params, 0), atol=2e-4
  )


def test_a_broken_seed_is_counted_and_the_others_never_notice():
  config = make_config('rbrl', run={'total_env_steps': 480})
  algorithm = methods.make(config, envs.make('probe_choice'))
  functions = compile_algorithm(algorithm)

  def go(poison):
    state = functions.init(seed_keys(0, 2))
    if poison:
      bias = state.agent.params.critic[-1].bias.at[1].set(jnp.nan)
      last = state.agent.params.critic[-1]._replace(bias=bias)
      critic = (*state.agent.params.critic[:-1], last)
      params = state.agent.params.replace(critic=critic)
      state = state.replace(agent=state.agent.replace(params=params))
    return jax.device_get(functions.chunks['explore'](state))

  (clean, _), (broken, metrics) = go(False), go(True)
  first = lambda tree: jax.tree.map(lambda x: x[0], tree)  # noqa: E731
  chex.assert_trees_all_equal(first(clean.agent.params), first(broken.agent.params))
  assert metrics['non_finite_updates'][0] == 0
  assert metrics['non_finite_updates'][1] > 0


def test_listeners_hear_every_chunk_and_evaluation_has_its_own_stream():
  config = make_config('ppo', run={'total_env_steps': 480})
  env = envs.make('probe_choice')
  heard = []
  runs = [
    train(
      methods.make(config, env),
      env,
      rows=seed_keys(0, 2),
      total_env_steps=480,
      eval_episodes=episodes,
      listeners=(lambda steps, m: heard.append((steps, m)),),
    )
    for episodes in (0, 4)
  ]
  assert [steps for steps, _ in heard] == [160, 320, 480] * 2
  assert heard[0][1]['episode_return'].shape == (2,)
  assert heard[0][1]['phase'] == 'learn'
  assert runs[0].evaluation is None
  assert runs[1].evaluation.returns.shape == (2, 4)
  chex.assert_trees_all_equal(runs[0].policy, runs[1].policy)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'run': {'total_env_steps': 1000}}, 'try --total_env_steps=960'),
    ({'feedback': {'segment_steps': 11}}, 'segment_steps=11'),
    ({'feedback': {'pretrain_steps': 9999}}, 'total_env_steps=1280'),
  ],
)
def test_bad_combinations_are_refused_in_one_sentence(changes, message):
  config = make_config('rbrl', **changes)
  with pytest.raises(ValueError, match=message) as error:
    methods.check(config, envs.make('probe_choice'))
  assert str(error.value).endswith('.')


def test_a_rater_without_a_scale_is_refused():
  env = ScrambledReward(envs.make('probe_choice'), scramble=False)
  env.max_segment_return = 0.0
  config = make_config('rbrl', rating={'max_return': 0.0})
  with pytest.raises(ValueError, match='--rating_max_return=0'):
    methods.check(config, env)
