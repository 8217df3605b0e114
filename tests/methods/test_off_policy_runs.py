"""Whole runs of agents with a replay buffer, and of every composition."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax import envs, methods
from rlfb_jax.methods import plan
from rlfb_jax.methods.config import RunOptions
from rlfb_jax.methods.make import make_combine
from rlfb_jax.reward.meta_options import MetaOptions
from rlfb_jax.training import export
from tests.methods.probe_runs import (
  assert_reward_quality_is_reported,
  make_config,
  run,
)

COMPOSITIONS = (
  'sac',
  'ddpg',
  'pebble',
  'surf+rune',
  'mrn+kl/both',
  'rbrl_kl@ddpg',
  'pref_ppo',
)
LONG_CROPS = {'margin': 3, 'crop': 5}
SMALL_CHUNKS = {'chunk_steps': 16, 'random_steps': 0}
SHORT = {'run': {'total_env_steps': 640}}


@functools.cache
def finished(method):
  """One run of two seeds, shared by the tests below."""
  return run(make_config(method, **SHORT))


@pytest.mark.parametrize('method', COMPOSITIONS)
def test_every_composition_runs_and_stays_finite(method):
  state, rows = finished(method)
  for leaf in jax.tree.leaves(state.agent):
    if jnp.issubdtype(leaf.dtype, jnp.floating):
      assert bool(jnp.all(jnp.isfinite(leaf)))
  assert all(np.all(r.get('non_finite_updates', 0) == 0) for r in rows)
  assert rows[-1]['phase'] == 'learn'


@pytest.mark.parametrize('method', ['sac', 'ddpg', 'pref_ppo'])
def test_an_exported_policy_acts_as_the_one_that_was_trained(method):
  state, _ = finished(method)
  algorithm = methods.make(make_config(method, **SHORT), envs.make('probe_choice'))
  policy = jax.device_get(algorithm.policy(state))
  exported = export.from_network('probe_choice', algorithm.network(policy))
  # Far enough for normalised observations to be clipped.
  obs = np.linspace(-40, 40, 81, dtype=np.float32)[:, None]
  for seed in range(2):
    one = jax.tree.map(lambda x, seed=seed: x[seed], policy)
    trained = algorithm.act(one, jnp.asarray(obs))
    assert float(jnp.std(trained)) > 1e-3
    np.testing.assert_allclose(exported.act(obs, seed=seed), trained, atol=1e-5)


def test_pairs_are_asked_about_within_the_budget():
  _, rows = finished('pebble')
  assert [r['pairs_asked'][0] for r in rows if 'pairs_asked' in r] == [12, 24, 30]
  counts = [r['answer_counts'] for r in rows if 'answer_counts' in r]
  assert np.shape(counts) == (3, 2, 4)
  assert np.sum(counts, axis=2)[:, 0].tolist() == [12, 24, 30]
  assert [r['phase'] for r in rows[:3]] == ['random', 'explore', 'learn']


def test_the_reward_of_pairs_is_judged_once_somebody_has_been_asked():
  assert_reward_quality_is_reported(finished('pebble')[1])
  # Baselines have no learned reward to report.
  assert not {'learned_return', 'held_out_accuracy'} & set(finished('sac')[1][-1])


def test_fresh_and_stored_labels_pay_the_same():
  stored, _ = finished('pebble')
  fresh, _ = run(make_config('pebble', replay={'fresh_labels': True}, **SHORT))
  chex.assert_trees_all_close(
    stored.agent.actor, fresh.agent.actor, atol=1e-3, rtol=1e-3
  )


def test_both_kinds_have_budgets_of_their_own():
  state, rows = finished('mrn+kl/both')
  assert int(state.feedback.answers.ratings.asked[0]) == 60
  assert int(state.feedback.answers.pairs.asked.asked[0]) == 30
  last = [r for r in rows if 'reward_loss' in r][-1]
  assert {'rating_accuracy', 'preference_accuracy'} <= set(last)


def test_outer_steps_come_when_they_are_due_and_move_the_reward():
  _, rows = finished('mrn+kl/both')
  outer = [r for r in rows if 'meta_gradient_norm' in r]
  # Every 160 steps after the first session at 160 and before the last at 480.
  assert len(outer) == 1
  assert np.all(outer[0]['meta_gradient_norm'] > 0)
  assert np.all(outer[0]['supervised_gradient_norm'] > 0)
  assert np.all(outer[0]['meta_reward_change'] > 0)


def test_curiosity_pays_more_than_the_mean():
  config = make_config('rune')
  payer = make_combine(config.reward, config.rune)
  members = jnp.asarray([[0.0, 1.0], [1.0, 1.0]])
  start = payer(members, jnp.int32(0))
  np.testing.assert_allclose(start, [0.5 + 0.05 * 0.5, 1.0], rtol=1e-6)
  later = payer(members, jnp.int32(100_000))
  expected = 0.5 + 0.05 * 0.5 * (1 - 1e-5) ** 100_000
  np.testing.assert_allclose(later[0], expected, rtol=1e-5)


def test_a_seed_among_many_is_the_run_of_that_seed_alone():
  many, _ = finished('pebble')
  config = make_config('pebble', run={'total_env_steps': 640, 'seed': 1})
  alone, _ = run(config, num_seeds=1)
  pick = lambda tree, i: jax.tree.map(lambda x: x[i], tree)  # noqa: E731
  chex.assert_trees_all_close(
    pick(many.agent.actor, 1), pick(alone.agent.actor, 0), atol=1e-4
  )


@pytest.mark.parametrize(
  ('method', 'changes', 'message'),
  [
    (
      'pebble',
      {'pairs': {'pretrain_steps': 0}, 'replay': SMALL_CHUNKS},
      'clips need 5',
    ),
    ('pebble', {'replay': {'random_steps': 400}}, 'nobody would act on'),
    ('rbrl_kl@sac', {'kl': {'below_median': True}, 'replay': SMALL_CHUNKS}, 'is none'),
    (
      'rbrl_kl',
      {
        'kl': {'below_median': True},
        'ppo': {'rollout_steps': 4, 'minibatch_size': 8},
        'run': {'total_env_steps': 1280},
      },
      'try --ppo_rollout_steps=5 or more',
    ),
    ('rbrl_kl@sac', {'kl': {'kl_mode': 'ratio'}}, 'does not remember'),
    (
      'pebble/both',
      {
        'pairs': {'pretrain_steps': 0},
        'feedback': {'pretrain_steps': 160},
        'replay': SMALL_CHUNKS,
      },
      r'try --pairs_pretrain_steps=20 or more',
    ),
    ('rbrl', {'reward': {'rating_weight': 0.0}}, 'try --reward_rating_weight=1'),
    ('pebble', {'reward': {'pair_weight': 0.0}}, 'try --reward_pair_weight=1'),
    ('pebble', {'reward': {'ensemble_size': 1}}, 'try .*--pairs_query=uniform'),
    (
      'rune',
      {'reward': {'ensemble_size': 1}, 'pairs': {'query': 'uniform'}},
      'RUNE pays for disagreement',
    ),
    ('rune', {'reward': {'aggregation': 'mean_plus_std'}}, 'twice'),
    ('rune', {'reward': {'aggregation': 'mean_minus_std'}}, 'charge .* RUNE pays for'),
    (
      'surf',
      {'surf': LONG_CROPS, 'pairs': {'segment_steps': 4}},
      'nothing may be left',
    ),
    ('mrn', {'mrn': {'interval': 100}}, 'try 80'),
    (
      'mrn',
      {
        'mrn': {'replaces_update': True, 'interval': 160},
        'replay': {'num_envs': 8, 'chunk_steps': 8},
        'run': {'total_env_steps': 640, 'updates_per_step': 0.125},
      },
      'leave a chunk of 8 steps no update; try --replay_chunk_steps=16',
    ),
    (
      'mrn',
      {'pairs': {'label_budget': 12}},
      r'no bi-level step.*more sessions \(--pairs_labels_per_session\)',
    ),
    (
      'mrn/ratings',
      {'feedback': {'label_budget': 24}},
      r'no bi-level step.*more sessions \(--feedback_labels_per_session\)',
    ),
    (
      'mrn/both',
      {'feedback': {'label_budget': 24}, 'pairs': {'label_budget': 12}},
      'sessions .--feedback_labels_per_session or --pairs_labels_per_session.,',
    ),
    ('mrn', {'mrn': {'outer_weight': 0.0}}, '--preset=mrn_zero'),
    ('mrn', {'mrn': {'learning_rate': 0.0}}, '--preset=mrn_zero'),
    # Rounded, the run would end before the first labels.
    ('rbrl', {'run': {'total_env_steps': 100}}, r'try --total_env_steps=\d+\.'),
    ('sac', {'run': {'updates_per_step': 0.3}}, 'try --updates_per_step=0.25'),
  ],
)
def test_what_would_fail_late_or_do_nothing_is_refused_at_once(
  method, changes, message
):
  config = make_config(method, **SHORT | changes)
  with pytest.raises(ValueError, match=message) as error:
    methods.check(config, envs.make('probe_choice'))
  assert '\n' not in str(error.value)


def test_the_length_that_is_proposed_works():
  env = envs.make('probe_choice')
  config = make_config('rbrl', run={'total_env_steps': 100})
  with pytest.raises(ValueError, match='try --total_env_steps=') as error:
    methods.check(config, env)
  steps = int(str(error.value).rpartition('=')[2].rstrip('.'))
  methods.check(make_config('rbrl', run={'total_env_steps': steps}), env)


def test_a_collapsed_policy_counts_only_once_there_is_something_to_leave():
  """A saturated actor before the first label is no fault of the repulsion."""
  config = make_config('rbrl_kl@ddpg', **SHORT)
  algorithm = methods.make(config, envs.make('probe_choice'))
  state = jax.jit(algorithm.init)(jax.random.key(0))
  state, _ = jax.jit(algorithm.chunks['random'])(state)
  saturated = jax.tree.map(lambda x: 100.0 * jnp.ones_like(x), state.agent.actor)
  state = state.replace(agent=state.agent.replace(actor=saturated))
  diagnose = jax.jit(algorithm.diagnose)
  for _ in range(6):
    state, metrics = diagnose(state)
  assert float(metrics['policy/saturation']) > 0.9
  assert bool(state.feedback.repelling)
  classes = state.feedback.classes
  alive = classes.replace(mask=jnp.ones_like(classes.mask))
  state = state.replace(feedback=state.feedback.replace(classes=alive))
  for _ in range(6):
    state, _ = diagnose(state)
  assert not bool(state.feedback.repelling)


def test_curiosity_has_a_gradient_where_the_members_agree():
  config = make_config('rune')
  payer = make_combine(config.reward, config.rune)
  gradient = jax.grad(lambda m: jnp.sum(payer(m, jnp.int32(0))))(jnp.ones((3, 2)))
  assert bool(jnp.all(jnp.isfinite(gradient)))


def test_ratings_that_pay_an_agent_with_a_temperature_have_a_scale():
  state, _ = finished('rbrl_kl@ddpg')
  assert not np.allclose(state.feedback.reward_model.scale, 1.0)
  pairs, _ = finished('pebble')
  np.testing.assert_array_equal(pairs.feedback.reward_model.scale, 1.0)


def test_clocks_of_the_published_walker():
  config = methods.Config(
    run=RunOptions(method='mrn', task='walker_walk', total_env_steps=1_000_000)
  )
  env = envs.make('walker_walk')
  sessions = plan.sessions(config, env).pairs
  assert [s.env_steps for s in sessions] == list(range(10_000, 190_001, 20_000))
  algorithm = methods.make(config, env)
  times = range(0, 1_000_000, algorithm.steps_per_chunk)
  outer = [t for t in times if 'outer_step' in algorithm.events_due(t)]
  assert len(outer) == 179
  assert (outer[0], outer[-1]) == (11_000, 189_000)
  assert {algorithm.phase(t) for t in outer} == {'learn'}
  released = dataclasses.replace(config, mrn=MetaOptions(replaces_update=True))
  phase = methods.make(released, env).phase
  assert [t for t in times if phase(t) == 'learn_after_outer'] == outer
  assert [t for t in times if 'begin_learning' in algorithm.events_due(t)] == [10_000]
  # A run that ends before its budget is spent goes on to its end.
  assert plan.budget_spent_at(config, env) == 190_000
  short = dataclasses.replace(config.run, total_env_steps=100_000)
  assert plan.budget_spent_at(dataclasses.replace(config, run=short), env) is None
