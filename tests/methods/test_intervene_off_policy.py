"""How the repulsion of RbRL-KL pushes agents that learn from a replay buffer."""

import functools
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax import envs, methods
from rlfb_jax.agents.off_policy import Transitions
from rlfb_jax.agents.regulariser import Regulariser
from rlfb_jax.agents.sac import SACOptions, make_sac
from rlfb_jax.core import replay as replay_lib
from rlfb_jax.methods.intervene_off_policy import make_off_policy_intervention
from rlfb_jax.methods.off_policy_learner import OffPolicyLearner
from rlfb_jax.methods.off_policy_parts import OffPolicyState
from rlfb_jax.repulsion import RepulsionOptions, make_repulsion
from rlfb_jax.reward.model import make_reward_model
from tests.methods.probe_runs import make_config, session_of

ENV = envs.make('probe_choice')
AGENTS = ('sac', 'ddpg')
EPISODE, KL_BATCH = 10, 64


def configure(method, **kl):
  """Asked for the first time after random actions: no program for novelty."""
  return make_config(
    method,
    run={'total_env_steps': 640, 'updates_per_step': 0.5},
    ddpg={'actor_learning_rate': 3e-3},
    feedback={'pretrain_steps': 80},
    kl=kl,
  )


@functools.cache
def asked(method, **kl):
  """The method, and one seed after its first session."""
  algorithm = methods.make(configure(method, **kl), ENV)
  session = session_of(algorithm, algorithm.request(80))

  @jax.jit
  def begin(key):
    state, _ = algorithm.chunks['random'](algorithm.init(key))
    return session(state)[0]

  return algorithm, begin(jax.random.key(0))


@functools.cache
def learned(method, **kl):
  """One seed after a chunk of learning, and that chunk's metrics."""
  # Until somebody has been asked, modes differ in no more than what heads remember.
  alike = method.startswith('rbrl_kl') and 'heads' not in kl.get('kl_mode', '')
  _, state = asked(method, **{'beta': 0.0} if alike else kl)
  algorithm = methods.make(configure(method, **kl), ENV)
  return jax.device_get(jax.jit(algorithm.chunks['learn'])(state))


@pytest.mark.parametrize('agent', AGENTS)
def test_a_repulsion_of_no_strength_trains_to_the_same_bits_as_rbrl(agent):
  plain, _ = learned(f'rbrl@{agent}')
  none, metrics = learned(f'rbrl_kl@{agent}', beta=0.0)
  assert plain.agent.term is None
  chex.assert_trees_all_equal(none.agent.replace(term=None), plain.agent)
  chex.assert_trees_all_equal(none.replay, plain.replay)
  chex.assert_trees_all_equal(none.feedback.reward_model, plain.feedback.reward_model)
  assert none.feedback.classes.mask.any()
  assert 'kl/loss' not in metrics


@pytest.mark.parametrize(
  ('agent', 'mode'),
  [
    ('sac', 'pathwise'),
    ('sac', 'heads_unlikelihood'),
    ('sac', 'heads_gaussian'),
    ('ddpg', 'pathwise'),
  ],
)
def test_a_push_on_the_actor_moves_it_and_leaves_the_rewards_alone(agent, mode):
  control, plain = learned(f'rbrl_kl@{agent}', beta=0.0)
  pushed, metrics = learned(f'rbrl_kl@{agent}', kl_mode=mode)
  chex.assert_tree_all_finite(pushed.agent)
  gap = pushed.agent.actor[0].kernel - control.agent.actor[0].kernel
  assert np.abs(gap).max() > 1e-5
  assert 0 < metrics['kl/gradient_scale'] <= 1
  assert metrics['kl/gradient_ratio'] > 0
  # Random actions and the first answers came before; what is stored is their pay.
  chex.assert_trees_all_equal(
    pushed.feedback.reward_model, control.feedback.reward_model
  )
  np.testing.assert_array_equal(pushed.replay.rewards[:80], control.replay.rewards[:80])
  assert plain.keys() < metrics.keys()


@pytest.mark.parametrize('agent', AGENTS)
def test_influence_moves_the_policy_through_what_it_is_paid(agent):
  control, plain = learned(f'rbrl_kl@{agent}', beta=0.0)
  pushed, metrics = learned(f'rbrl_kl@{agent}', kl_mode='influence')
  chex.assert_tree_all_finite(pushed.agent)
  for part in ('critic', 'actor'):
    here, there = (getattr(s.agent, part)[0].kernel for s in (pushed, control))
    assert np.abs(here - there).max() > 1e-5
  assert abs(metrics['agent_reward'] - plain['agent_reward']) > 1e-4
  assert 'kl/loss' not in metrics
  # The bonus follows the behaviour of the moment, and is not stored.
  np.testing.assert_array_equal(pushed.replay.rewards[:80], control.replay.rewards[:80])


def test_new_classes_are_gated_by_the_behaviour_of_the_moment():
  config = configure('rbrl_kl@sac', below_median=True)
  algorithm, state = asked('rbrl_kl@sac', below_median=True)
  feedback = state.feedback
  steps, length = feedback.archive.steps, config.feedback.segment_steps
  assert int(feedback.archive.filled) == feedback.archive.rollout_steps == 20
  model = make_reward_model(config.reward, 1, 1)
  values = np.asarray(
    model.r_hat(feedback.reward_model, steps.obs[:20], steps.action[:20])
  )
  means = values.reshape(-1, length, values.shape[1]).mean(axis=1).ravel()
  predicted = np.sort((means[:, None] > np.asarray(feedback.boundaries)).sum(axis=1))
  median = predicted[(len(predicted) - 1) // 2]
  gate = np.arange(3) < median
  assert gate.any()
  np.testing.assert_array_equal(feedback.classes.gate, [*gate, gate.any()])
  # That is what the diagnosis of the same behaviour finds, however it was before.
  opened = feedback.classes.replace(gate=jnp.ones(4, bool))
  state = state.replace(feedback=feedback.replace(classes=opened))
  seen, _ = jax.jit(algorithm.diagnose)(state)
  np.testing.assert_array_equal(seen.feedback.classes.gate, feedback.classes.gate)


@functools.cache
def intervene(**changes):
  """The intervention on a world of two observations, and three classes to leave."""
  options = RepulsionOptions(**{'kl_batch': KL_BATCH, 'min_segments': 2} | changes)
  agent = make_sac(SACOptions(hidden_size=8), 2, 1, regularised=True)
  repulsion = make_repulsion(options, agent.policy, 3, 2, 1)
  rng = np.random.default_rng(0)
  obs, action = rng.normal(size=(12, 5, 2)), rng.uniform(-1, 1, size=(12, 5, 1))
  rating = np.arange(12) % 3
  classes = repulsion.fit(
    jax.random.key(0),
    jnp.asarray(obs + rating[:, None, None], jnp.float32),
    jnp.asarray(action, jnp.float32),
    jnp.asarray(rating),
    jnp.ones(12, bool),
  )
  parts = make_off_policy_intervention(repulsion, agent, options, None, 1, EPISODE, 5)
  return agent, parts, classes


def judged(classes, repelling=True):
  """As much of the feedback's state as a push reads."""
  return SimpleNamespace(classes=classes, repelling=jnp.asarray(repelling))


def transitions(obs, action):
  nothing = jnp.zeros(obs.shape[0], bool)
  return Transitions(obs, action, obs, terminated=nothing, truncated=nothing)


def behaviour(seed, size=KL_BATCH, shift=0.0):
  rng = np.random.default_rng(seed)
  obs = jnp.asarray(rng.normal(size=(size, 2)) + shift, jnp.float32)
  return transitions(obs, jnp.asarray(rng.uniform(-0.9, 0.9, (size, 1)), jnp.float32))


def test_the_push_keeps_to_its_budget_and_fades_with_saturation():
  rl, term = jnp.array([30.0, 40.0]), jnp.array([0.0, -100.0])

  def push(saturated=0.0, signal_norm=8.0, **changes):
    _, parts, classes = intervene(gradient_budget=0.25, **changes)
    action = jnp.where(jnp.arange(100) < round(100 * saturated), -1.0, 0.5)[:, None]
    recent = transitions(jnp.zeros((100, 2)), action)
    combine = parts.regulariser(judged(classes), recent).combine
    # Nothing collected the buffer that the policy could have moved away from.
    joined, metrics = combine(rl, term, jnp.float32(1e9), jnp.float32(signal_norm))
    assert float(joined[0]) == 30.0
    return float(rl[1] - joined[1]), metrics

  amount, metrics = push()
  assert amount == pytest.approx(0.25 * 8)
  assert float(metrics['kl/gradient_ratio']) == pytest.approx(100 / 50)
  assert push(gradient_budget_reference='minibatch')[0] == pytest.approx(0.25 * 50)
  assert push(signal_norm=1e9)[0] == pytest.approx(100)
  for saturated, room in ((0.3, 0.5), (0.6, 0.0), (0.9, 0.0)):
    amount, metrics = push(saturated)
    assert amount == pytest.approx(0.25 * 8 * room, abs=1e-5)
    assert float(metrics['kl/room']) == pytest.approx(room, abs=1e-6)


def test_the_push_is_away_from_the_classes_as_seen_from_recent_states():
  agent, parts, classes = intervene()
  actor = agent.init(jax.random.key(1)).actor
  value = jax.jit(
    lambda actor, recent, on: parts.regulariser(judged(classes, on), recent).loss(
      actor, jax.random.key(2)
    )[0]
  )
  losses = [float(value(actor, behaviour(seed), True)) for seed in (0, 1)]
  assert max(losses) < 0
  assert losses[0] != losses[1]
  # A seed whose policy has collapsed is left alone.
  assert float(value(actor, behaviour(0), False)) == 0


def test_influence_has_mean_zero_over_recent_behaviour_only():
  _, parts, classes = intervene(kl_mode='influence', influence_clip=1e6)
  assert parts.regulariser is None
  recent, far = behaviour(0), behaviour(1, size=16, shift=2.0)
  shape = jax.jit(
    lambda batch, on: parts.shape_rewards(judged(classes, on), batch, recent)
  )
  own, other = shape(recent, True), shape(far, True)
  assert other.shape == (16,)
  scale = float(jnp.std(own))
  assert scale > 1e-3
  assert abs(float(jnp.mean(own))) < 1e-3 * scale
  assert abs(float(jnp.mean(other))) > 0.1 * scale
  np.testing.assert_array_equal(shape(far, False), np.zeros(16))


def test_what_pushes_sees_the_newest_20_episodes():
  agent, parts, _ = intervene()
  assert (parts.recent_rows, parts.newest) == (KL_BATCH, 20 * EPISODE)

  def regulariser(feedback, recent):
    seen = {'low': jnp.min(recent.obs), 'high': jnp.max(recent.obs)}
    seen['rows'] = jnp.float32(recent.obs.shape[0])
    return Regulariser(
      loss=lambda actor, key: (0.0 * sum(map(jnp.sum, jax.tree.leaves(actor))), seen),
      combine=lambda rl, term, *_: (rl, {}),
      refresh_every=1,
    )

  def shape_rewards(feedback, batch, recent):
    return jnp.full(batch.obs.shape[0], jnp.min(recent.obs))

  size = 500
  learner = OffPolicyLearner(
    agent=agent,
    batch_size=32,
    fresh_labels=False,
    catch_up_updates=0,
    explore_steps=0,
    neighbours=5,
    feedback=SimpleNamespace(combine=lambda members, env_steps: members[0]),
    outer=None,
    intervention=parts._replace(regulariser=regulariser, shape_rewards=shape_rewards),
  )
  # Rows are numbered in the order in which they came.
  ids = jnp.arange(size, dtype=jnp.float32)[:, None]
  obs, ends = ids * jnp.ones(2), jnp.zeros((size, 1))
  replay = replay_lib.init_replay(size, (2, 1, 2, 1, 1), 1)
  state = OffPolicyState(
    agent=agent.init(jax.random.key(0)),
    replay=replay_lib.insert(replay, (obs, 0 * ids, obs, ends, ends), 0 * ids),
    env=None,
    clock=None,
    feedback=None,
    novelty=None,
    key=jax.random.key(1),
    env_steps=jnp.int32(size),
    updates=jnp.int32(0),
  )
  learn = jax.jit(functools.partial(learner.learn_once, exploring=False))
  _, metrics = learn(state)
  assert metrics['rows'] == KL_BATCH
  assert 300 <= metrics['low'] < 320
  assert 480 < metrics['high'] < 500
  # Without a batch of their own, rewards would be shaped by rows of any age.
  assert 300 <= metrics['agent_reward'] < 320
