"""DDPG against float64 NumPy and finite differences, and what its update keeps."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import off_policy_reference as ref
import pytest

from rlfb_jax.agents.ddpg import DDPGOptions, losses, make_ddpg
from rlfb_jax.agents.off_policy import Transitions, update
from rlfb_jax.agents.regulariser import Regulariser

OPTIONS = DDPGOptions(hidden_size=5, actor_learning_rate=1e-2, tau=0.1)
AGENT = make_ddpg(OPTIONS, ref.STATES, ref.ACTIONS, regularised=True)
STEP0 = jnp.int32(0)
init = jax.jit(AGENT.init)
learn = jax.jit(lambda s, b, y, t: AGENT.learn(s, b, y, jax.random.key(0), t))
run_update = jax.jit(lambda s, b, r, k, t: update(AGENT, s, b, r, k, t))


@pytest.fixture(scope='module')
def state():
  fresh = init(jax.random.key(0))
  return fresh.replace(
    actor=ref.perturbed(fresh.actor, 1),
    critic=ref.perturbed(fresh.critic, 2),
    target_actor=ref.perturbed(fresh.target_actor, 3),
    target_critic=ref.perturbed(fresh.target_critic, 4),
  )


@pytest.fixture(scope='module')
def batch():
  return ref.random_batch()


def test_a_fresh_agent_acts_and_values_near_zero():
  fresh = init(jax.random.key(0))
  obs = jax.random.normal(jax.random.key(1), (50, ref.STATES))
  mean, log_std = AGENT.policy(AGENT.actor_params(fresh), obs)
  assert float(jnp.abs(mean).max()) < 0.2
  np.testing.assert_allclose(log_std, np.log(0.1), rtol=1e-6)
  assert log_std.shape == mean.shape == (50, ref.ACTIONS)
  chex.assert_trees_all_equal(fresh.actor, fresh.target_actor)
  chex.assert_trees_all_equal(fresh.critic, fresh.target_critic)
  assert not any(leaf.weak_type for leaf in jax.tree.leaves(fresh))


def test_exploration_has_the_law_that_the_policy_states():
  fresh = init(jax.random.key(0))
  obs = jnp.ones((20_000, ref.STATES))
  action = jax.jit(AGENT.act)(fresh, obs, jax.random.key(5))
  mean, _ = AGENT.policy(fresh.actor, obs[:1])
  raw = np.arctanh(np.asarray(action, np.float64))
  np.testing.assert_allclose(raw.mean(0), mean[0], atol=4 * 0.1 / 141)
  np.testing.assert_allclose(raw.std(0), 0.1, rtol=0.03)
  np.testing.assert_allclose(np.std(action, axis=0), 0.1, rtol=0.06)


@pytest.mark.parametrize('scale_by_value', [True, False])
def test_actor_gradient_matches_finite_differences(state, batch, scale_by_value):
  grads = jax.grad(losses.actor_loss)(
    state.actor, state.critic, batch.obs, scale_by_value
  )
  actor, critic, b = ref.to_numpy((state.actor, state.critic, batch))
  values = ref.q(critic, b.obs, np.tanh(ref.mlp(actor, b.obs)))[0]
  fixed = np.abs(values).mean() if scale_by_value else 1.0

  def loss(p):
    return -ref.q(critic, b.obs, np.tanh(ref.mlp(p, b.obs)))[0].mean() / fixed

  chex.assert_trees_all_close(
    ref.to_numpy(grads), ref.finite_differences(loss, actor), rtol=1e-3, atol=1e-5
  )


def test_the_scaled_loss_does_not_know_the_scale_of_the_reward(state, batch):
  last = state.critic[-1]
  larger = (*state.critic[:-1], jax.tree.map(lambda x: 50.0 * x, last))
  one, fifty = (
    jax.grad(losses.actor_loss)(state.actor, c, batch.obs, True)
    for c in (state.critic, larger)
  )
  chex.assert_trees_all_close(one, fifty, rtol=1e-4, atol=1e-6)


def test_one_whole_update_matches_numpy(state, batch):
  rewards = jnp.asarray(np.random.default_rng(5).normal(size=ref.BATCH), jnp.float32)
  after, metrics = run_update(state, batch, rewards, jax.random.key(4), STEP0)
  actor, critic, target_actor, target_critic, b = ref.to_numpy(
    (state.actor, state.critic, state.target_actor, state.target_critic, batch)
  )
  next_action = np.tanh(ref.mlp(target_actor, b.next_obs))
  values = ref.q(target_critic, b.next_obs, next_action)[0]
  y = ref.targets(np.asarray(rewards, np.float64), values, batch, 0.99)

  def critic_loss(p):
    return ((ref.q(p, b.obs, b.action)[0] - y) ** 2).mean()

  np.testing.assert_allclose(metrics['critic_loss'], critic_loss(critic), rtol=1e-4)
  grads = ref.finite_differences(critic_loss, critic)
  new_critic = ref.first_adam_step(critic, grads, OPTIONS.critic_learning_rate)
  ref.assert_steps_close(after.critic, new_critic, critic, OPTIONS.critic_learning_rate)

  def actor_loss(p):
    return -ref.q(new_critic, b.obs, np.tanh(ref.mlp(p, b.obs)))[0].mean()

  grads = ref.finite_differences(actor_loss, actor)
  new_actor = ref.first_adam_step(actor, grads, OPTIONS.actor_learning_rate)
  ref.assert_steps_close(after.actor, new_actor, actor, OPTIONS.actor_learning_rate)
  chex.assert_trees_all_close(
    (after.target_actor, after.target_critic),
    jax.tree.map(
      lambda t, p: 0.9 * t + 0.1 * p,
      (target_actor, target_critic),
      ref.to_numpy((after.actor, after.critic)),
    ),
    atol=1e-6,
  )


def test_nothing_is_learned_through_targets(state, batch):
  def value(s):
    return jnp.sum(AGENT.next_values(s, batch, jax.random.key(0)))

  grads = jax.grad(value, allow_int=True)(state)
  for leaf in jax.tree.leaves((grads.target_actor, grads.target_critic, grads.actor)):
    np.testing.assert_array_equal(leaf, 0.0)


def test_reset_critic_keeps_the_actor_and_its_target(state, batch):
  trained, _ = learn(state, batch, jnp.ones(ref.BATCH), STEP0)
  reset = jax.jit(AGENT.reset_critic)(jax.random.key(9), trained)
  for name in ('actor', 'target_actor', 'actor_optimizer', 'skipped_updates'):
    chex.assert_trees_all_equal(getattr(trained, name), getattr(reset, name))
  assert not np.allclose(reset.critic[0].kernel, trained.critic[0].kernel)
  chex.assert_trees_all_equal(reset.critic, reset.target_critic)
  for leaf in jax.tree.leaves(reset.critic_optimizer):
    np.testing.assert_array_equal(leaf, 0)


def test_values_that_are_not_finite_are_skipped_and_counted(state, batch):
  y = jnp.ones(ref.BATCH).at[3].set(jnp.inf)
  after, metrics = learn(state, batch, y, STEP0)
  assert int(after.skipped_updates) == 1
  assert float(metrics['non_finite_updates']) == 1.0
  chex.assert_trees_all_equal(after.critic, state.critic)
  chex.assert_tree_all_finite((after.actor, after.target_actor, after.target_critic))


def test_a_regulariser_is_cached_and_one_of_no_weight_changes_nothing(state, batch):
  def push(actor, key):
    del key
    return -jnp.sum(actor[-1].bias), {'push': jnp.float32(1.0)}

  def trained(with_term):
    def run(s, weight):
      def combine(rl, term, approx_kl, signal_norm):
        del approx_kl, signal_norm
        return jax.tree.map(lambda a, b: a + weight * b, rl, term), {}

      term = Regulariser(push, combine, 2) if with_term else None

      def one(s, t):
        return AGENT.learn(s, batch, jnp.ones(ref.BATCH), jax.random.key(0), t, term)

      return jax.lax.scan(one, s, jnp.arange(4))

    return jax.jit(run)

  plain, _ = trained(False)(state, 0.0)
  train = trained(True)
  pushed, metrics = train(state, 1000.0)
  silent, _ = train(state, 0.0)
  np.testing.assert_array_equal(metrics['push'], [2, 0, 2, 0])
  moved = pushed.actor[-1].bias - state.actor[-1].bias
  np.testing.assert_allclose(moved, 4 * OPTIONS.actor_learning_rate, rtol=0.05)
  # The same arithmetic in another program: equal but for how it is rounded.
  chex.assert_trees_all_close(
    silent.replace(term=None), plain.replace(term=None), atol=1e-6
  )


def test_seeds_on_an_axis_equal_seeds_alone(state, batch):
  states = jax.tree.map(lambda a, b: jnp.stack([a, b]), state, init(jax.random.key(7)))
  rewards = jnp.linspace(-1.0, 1.0, ref.BATCH)
  key = jax.random.key(3)
  traces = []

  @jax.jit
  @jax.vmap
  def together(s):
    traces.append(1)
    return update(AGENT, s, batch, rewards, key, STEP0)[0]

  got = together(states)
  together(got)
  assert len(traces) == 1
  for i in range(2):
    pick = lambda tree, i=i: jax.tree.map(lambda x: x[i], tree)  # noqa: E731
    alone, _ = run_update(pick(states), batch, rewards, key, STEP0)
    chex.assert_trees_all_close(pick(got), alone, atol=2e-5)


def test_a_walk_of_one_state_finds_action_and_value():
  """Reward 1 - (a + 0.4)^2 for ever at gamma 0.5: the best value is 2."""
  options = dataclasses.replace(
    OPTIONS,
    hidden_size=32,
    discount=0.5,
    actor_learning_rate=3e-3,
    critic_learning_rate=3e-3,
    exploration_std=0.5,
  )
  agent = make_ddpg(options, 1, 1)
  obs, ends = jnp.ones((64, 1)), jnp.zeros(64, bool)

  def one(carry, t):
    s, key = carry
    key, act_key, learn_key = jax.random.split(key, 3)
    action = agent.act(s, obs, act_key)
    rewards = 1.0 - jnp.square(action[:, 0] + 0.4)
    batch = Transitions(obs, action, obs, ends, ends)
    return (update(agent, s, batch, rewards, learn_key, t)[0], key), None

  @jax.jit
  def run(key):
    (s, _), _ = jax.lax.scan(one, (agent.init(key), key), jnp.arange(800))
    mean, _ = agent.policy(agent.actor_params(s), obs[:1])
    action = jnp.tanh(mean)
    return action[0, 0], agent.q_values(s.critic, obs[:1], action)[0, 0]

  action, value = run(jax.random.key(0))
  assert float(action) == pytest.approx(-0.4, abs=0.1)
  assert float(value) == pytest.approx(2.0, abs=0.1)
