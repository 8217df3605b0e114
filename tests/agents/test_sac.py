"""SAC against float64 NumPy and finite differences, and what its update keeps."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import off_policy_reference as ref
import pytest
from scipy import stats

from rlfb_jax.agents.critics import critic_loss
from rlfb_jax.agents.off_policy import Transitions, td_targets, update
from rlfb_jax.agents.regulariser import Regulariser
from rlfb_jax.agents.sac import SACOptions, losses, make_sac, networks

OPTIONS = SACOptions(
  hidden_size=5, batch_size=ref.BATCH, actor_learning_rate=1e-2, tau=0.1
)
AGENT = make_sac(OPTIONS, ref.STATES, ref.ACTIONS, regularised=True)
STEP0, STEP1 = jnp.int32(0), jnp.int32(1)
init = jax.jit(AGENT.init)
learn = jax.jit(lambda s, b, y, k, t: AGENT.learn(s, b, y, k, t))
run_update = jax.jit(lambda s, b, r, k, t: update(AGENT, s, b, r, k, t))


@pytest.fixture(scope='module')
def state():
  fresh = init(jax.random.key(0))
  return fresh.replace(
    actor=ref.perturbed(fresh.actor, 1),
    critic=ref.perturbed(fresh.critic, 2),
    target_critic=ref.perturbed(fresh.target_critic, 3),
  )


@pytest.fixture(scope='module')
def batch():
  return ref.random_batch()


def test_defaults_are_those_of_bpref():
  options = SACOptions()
  assert (options.hidden_size, options.hidden_layers) == (1024, 2)
  assert (options.min_log_std, options.max_log_std) == (-5.0, 2.0)
  with pytest.raises(ValueError, match=r'min_log_std=3.0 must be less than'):
    SACOptions(min_log_std=3.0)


def test_a_fresh_agent_is_orthogonal_with_targets_that_equal_critics():
  fresh = init(jax.random.key(0))
  chex.assert_trees_all_equal(fresh.critic, fresh.target_critic)
  kernels = [layer.kernel for layer in fresh.actor]
  kernels += [layer.kernel[c] for layer in fresh.critic for c in range(2)]
  for kernel in kernels:
    small = kernel if kernel.shape[0] <= kernel.shape[1] else kernel.T
    np.testing.assert_allclose(small @ small.T, np.eye(small.shape[0]), atol=1e-5)
  assert not np.allclose(fresh.critic[0].kernel[0], fresh.critic[0].kernel[1])
  assert not any(leaf.weak_type for leaf in jax.tree.leaves(fresh))
  np.testing.assert_allclose(jnp.exp(fresh.log_temperature), 0.1, rtol=1e-6)


def test_log_density_matches_scipy_and_survives_saturation():
  rng = np.random.default_rng(1)
  mean, log_std, noise = rng.normal(size=(3, 50, 2))
  action, got = networks.sample_action(*map(jnp.asarray, (mean, log_std, noise)))
  raw = mean + np.exp(log_std) * noise
  want = stats.norm.logpdf(raw, mean, np.exp(log_std)) - np.log(1 - np.tanh(raw) ** 2)
  np.testing.assert_allclose(got, want.sum(1), rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(action, np.tanh(raw), atol=1e-6)
  # At u = 100 the slope of tanh is 4 exp(-200): log 4 - 200, though 1 - a^2 is 0.
  far = jnp.full((1, 1), 100.0)
  action, got = networks.sample_action(far, jnp.full((1, 1), -5.0), jnp.zeros((1, 1)))
  want = 5.0 - 0.5 * np.log(2 * np.pi) - np.log(4.0) + 200.0
  assert float(action[0, 0]) == 1.0
  np.testing.assert_allclose(got[0], want, rtol=1e-6)


def test_log_std_stays_in_its_range():
  actor = ref.perturbed(init(jax.random.key(0)).actor, 1, scale=20.0)
  obs = jax.random.normal(jax.random.key(1), (100, ref.STATES))
  _, log_std = networks.policy(actor, obs, OPTIONS)
  assert float(log_std.min()) == -5.0
  assert float(log_std.max()) == 2.0


def test_one_whole_update_matches_numpy(state, batch):
  rewards = jnp.asarray(np.random.default_rng(5).normal(size=ref.BATCH), jnp.float32)
  key = jax.random.key(4)
  next_key, learn_key = jax.random.split(key)
  noise_key, _ = jax.random.split(learn_key)
  next_noise, noise = (
    np.asarray(jax.random.normal(k, (ref.BATCH, ref.ACTIONS)), np.float64)
    for k in (next_key, noise_key)
  )
  after, metrics = run_update(state, batch, rewards, key, STEP0)

  actor, critic, target = ref.to_numpy((state.actor, state.critic, state.target_critic))
  b = ref.to_numpy(batch)
  alpha = 0.1
  next_action, next_log_prob = ref.sac_action(actor, b.next_obs, next_noise)
  values = ref.q(target, b.next_obs, next_action).min(0) - alpha * next_log_prob
  y = ref.targets(np.asarray(rewards, np.float64), values, batch, 0.99)

  def critic_loss(p):
    return ((ref.q(p, b.obs, b.action) - y) ** 2).mean(1).sum()

  np.testing.assert_allclose(metrics['critic_loss'], critic_loss(critic), rtol=1e-4)
  grads = ref.finite_differences(critic_loss, critic)
  new_critic = ref.first_adam_step(critic, grads, OPTIONS.critic_learning_rate)
  ref.assert_steps_close(after.critic, new_critic, critic, OPTIONS.critic_learning_rate)

  def actor_loss(p):
    action, log_prob = ref.sac_action(p, b.obs, noise)
    # The critic that has just learned, not the one before.
    return (alpha * log_prob - ref.q(new_critic, b.obs, action).min(0)).mean()

  np.testing.assert_allclose(metrics['actor_loss'], actor_loss(actor), rtol=1e-3)
  grads = ref.finite_differences(actor_loss, actor)
  new_actor = ref.first_adam_step(actor, grads, OPTIONS.actor_learning_rate)
  ref.assert_steps_close(after.actor, new_actor, actor, OPTIONS.actor_learning_rate)

  entropy = -ref.sac_action(actor, b.obs, noise)[1].mean()
  np.testing.assert_allclose(metrics['entropy'], entropy, rtol=1e-4)
  direction = np.sign(alpha * (entropy + ref.ACTIONS))
  np.testing.assert_allclose(
    after.log_temperature, np.log(alpha) - 1e-4 * direction, rtol=1e-6
  )
  chex.assert_trees_all_close(
    after.target_critic,
    jax.tree.map(lambda t, p: 0.9 * t + 0.1 * p, target, new_critic),
    atol=1e-4,
  )


def test_gradients_match_finite_differences(state, batch):
  """Adam's first step shows only signs; the losses' own gradients show sizes."""
  noise = jax.random.normal(jax.random.key(8), (ref.BATCH, ref.ACTIONS))
  grads = jax.jit(
    jax.grad(
      lambda a: (
        losses.actor_loss(
          a, state.critic, jnp.float32(0.3), batch.obs, noise, OPTIONS
        ).loss
      )
    )
  )(state.actor)
  actor, critic, b, eps = ref.to_numpy((state.actor, state.critic, batch, noise))

  def loss(p):
    action, log_prob = ref.sac_action(p, b.obs, eps)
    return (0.3 * log_prob - ref.q(critic, b.obs, action).min(0)).mean()

  chex.assert_trees_all_close(
    ref.to_numpy(grads), ref.finite_differences(loss, actor), rtol=1e-3, atol=1e-4
  )
  y = jnp.asarray(np.random.default_rng(6).normal(size=ref.BATCH), jnp.float32)
  grads = jax.grad(lambda c: critic_loss(c, batch.obs, batch.action, y)[0])(
    state.critic
  )

  def loss_c(p):
    return ((ref.q(p, b.obs, b.action) - np.asarray(y, np.float64)) ** 2).mean(1).sum()

  chex.assert_trees_all_close(
    ref.to_numpy(grads), ref.finite_differences(loss_c, critic), rtol=1e-3, atol=1e-4
  )


def test_time_limits_bootstrap_and_ends_do_not():
  flags = jnp.asarray([[False, False], [True, False], [False, True]])
  empty = jnp.zeros((3, 1))
  batch = Transitions(empty, empty, empty, flags[:, 0], flags[:, 1])
  ones, values = jnp.ones(3), jnp.full(3, 10.0)
  np.testing.assert_allclose(td_targets(ones, values, batch, 0.5), [6, 1, 6])
  stopped = td_targets(ones, values, batch, 0.5, stop_at_time_limit=True)
  np.testing.assert_allclose(stopped, [6, 1, 1])


def test_nothing_is_learned_through_targets(state, batch):
  def value(s):
    return jnp.sum(AGENT.next_values(s, batch, jax.random.key(0)))

  grads = jax.grad(value, allow_int=True)(state)
  for leaf in jax.tree.leaves((grads.actor, grads.target_critic, grads.critic)):
    np.testing.assert_array_equal(leaf, 0.0)

  def loss(y):
    return critic_loss(state.critic, batch.obs, batch.action, y)[0]

  np.testing.assert_array_equal(jax.grad(loss)(jnp.ones(ref.BATCH)), 0.0)


def test_temperature_falls_where_the_entropy_is_too_high():
  grad = jax.grad(losses.temperature_loss)
  assert float(grad(jnp.float32(0.0), jnp.float32(1.0), -2.0)) == 3.0
  assert float(grad(jnp.float32(0.0), jnp.float32(-3.0), -2.0)) == -1.0


def test_targets_move_on_even_steps_only(state, batch):
  y = jnp.ones(ref.BATCH)
  after, _ = learn(state, batch, y, jax.random.key(0), STEP1)
  chex.assert_trees_all_equal(after.target_critic, state.target_critic)
  even, _ = learn(state, batch, y, jax.random.key(0), STEP0)
  chex.assert_trees_all_equal(even.critic, after.critic)
  moved = jax.tree.map(lambda a, b: a - b, even.target_critic, state.target_critic)
  whole = jax.tree.map(lambda a, b: a - b, even.critic, state.target_critic)
  chex.assert_trees_all_close(moved, jax.tree.map(lambda x: 0.1 * x, whole), atol=1e-6)


def test_reset_critic_keeps_actor_and_temperature(state, batch):
  trained, _ = learn(state, batch, jnp.ones(ref.BATCH), jax.random.key(0), STEP0)
  reset = jax.jit(AGENT.reset_critic)(jax.random.key(9), trained)
  new = ('critic', 'target_critic', 'critic_optimizer')
  for field in dataclasses.fields(reset):
    before, after = getattr(trained, field.name), getattr(reset, field.name)
    if field.name not in new:
      chex.assert_trees_all_equal(before, after)
  assert not np.allclose(reset.critic[0].kernel, trained.critic[0].kernel)
  chex.assert_trees_all_equal(reset.critic, reset.target_critic)
  for leaf in jax.tree.leaves(reset.critic_optimizer):
    np.testing.assert_array_equal(leaf, 0)


def test_values_that_are_not_finite_are_skipped_and_counted(state, batch):
  y = jnp.ones(ref.BATCH).at[3].set(jnp.nan)
  after, metrics = learn(state, batch, y, jax.random.key(0), STEP0)
  assert int(after.skipped_updates) == 1
  assert float(metrics['non_finite_updates']) == 1.0
  chex.assert_trees_all_equal(after.critic, state.critic)
  chex.assert_trees_all_equal(after.critic_optimizer, state.critic_optimizer)
  chex.assert_tree_all_finite((after.actor, after.target_critic))
  # Only the critics' gradient was bad: the actor has learned from the old critics.
  assert not np.array_equal(after.actor[0].kernel, state.actor[0].kernel)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize('field', ['obs', 'action', 'targets'])
def test_whatever_is_not_finite_reaches_no_network(state, batch, field, value):
  # 1e30 is finite, and its square is not: what comes back to the layers tells.
  y = jnp.ones(ref.BATCH)
  if field == 'targets':
    y = y.at[3].set(value)
  else:
    old = getattr(batch, field)
    batch = batch.replace(**{field: old.at[3, 0].set(value)})
  after, _ = learn(state, batch, y, jax.random.key(0), STEP0)
  assert int(after.skipped_updates) == 1
  chex.assert_tree_all_finite(after)


def _push(weight, refresh_every):
  def loss(actor, key):
    noise = 1.0 + jax.random.uniform(key)
    return -noise * jnp.sum(actor[-1].bias), {'push': jnp.float32(1.0)}

  def combine(rl, term, approx_kl, signal_norm):
    del signal_norm
    joined = jax.tree.map(lambda a, b: a + weight * b, rl, term)
    return joined, {'kl_seen': approx_kl}

  return Regulariser(loss, combine, refresh_every)


def _trained(batch, refresh_every):
  def run(s, weight):
    term = None if refresh_every is None else _push(weight, refresh_every)

    def one(s, t):
      s, m = AGENT.learn(s, batch, jnp.ones(ref.BATCH), jax.random.key(0), t, term)
      return s, (m, s.term.gradient[-1].bias)

    return jax.lax.scan(one, s, jnp.arange(5))

  return jax.jit(run)


def test_a_regulariser_moves_the_actor_and_is_reused_between_refreshes(state, batch):
  plain, (metrics, cached) = _trained(batch, None)(state, 0.0)
  assert 'push' not in metrics
  np.testing.assert_array_equal(cached, 0.0)
  train = _trained(batch, 3)
  pushed, (metrics, cached) = train(state, 1000.0)
  # Evaluated at steps 0 and 3; means over whole intervals are means over calls.
  np.testing.assert_array_equal(metrics['push'], [3, 0, 0, 3, 0])
  np.testing.assert_array_equal(metrics['kl_seen'], 0.0)
  np.testing.assert_array_equal(cached[0], cached[2])
  moved = pushed.actor[-1].bias - state.actor[-1].bias
  np.testing.assert_allclose(moved, 5 * OPTIONS.actor_learning_rate, rtol=0.05)
  # The same arithmetic in another program: equal but for how it is rounded.
  silent, _ = train(state, 0.0)
  chex.assert_trees_all_close(
    silent.replace(term=None), plain.replace(term=None), atol=1e-6
  )


def test_the_term_stays_a_branch_under_vmap(state, batch):
  states = jax.tree.map(lambda x: jnp.stack([x, x]), state)
  term = _push(1.0, 3)

  def one(s, t):
    return AGENT.learn(s, batch, jnp.ones(ref.BATCH), jax.random.key(0), t, term)

  jaxpr = jax.make_jaxpr(jax.vmap(one))(states, jnp.asarray([3, 3], jnp.int32))
  assert ' cond[' in str(jaxpr)


def test_the_actor_may_learn_more_rarely_than_the_critics(state, batch):
  agent = make_sac(
    dataclasses.replace(OPTIONS, actor_update_every=2), ref.STATES, ref.ACTIONS
  )
  slow = jax.jit(lambda s, t: agent.learn(s, batch, y, jax.random.key(0), t))
  y = jnp.ones(ref.BATCH)
  rest, metrics = slow(state, STEP1)
  chex.assert_trees_all_equal(rest.actor, state.actor)
  assert float(rest.log_temperature) == float(state.log_temperature)
  assert float(metrics['entropy']) == 0.0
  moved, metrics = slow(state, STEP0)
  always, wanted = learn(state, batch, y, jax.random.key(0), STEP0)
  chex.assert_trees_all_close(moved.actor, always.actor, atol=1e-6)
  np.testing.assert_allclose(metrics['entropy'], 2 * wanted['entropy'], rtol=1e-5)


def test_seeds_on_an_axis_equal_seeds_alone_and_nothing_compiles_twice(state, batch):
  states = jax.tree.map(lambda a, b: jnp.stack([a, b]), state, init(jax.random.key(7)))
  keys = jax.random.split(jax.random.key(3), 2)
  rewards = jnp.linspace(-1.0, 1.0, ref.BATCH)
  traces = []

  def one(s, k):
    traces.append(1)
    return update(AGENT, s, batch, rewards, k, STEP0)

  together = jax.jit(jax.vmap(one))
  got, _ = together(states, keys)
  got_again, _ = together(got, keys)
  assert len(traces) == 1
  assert jax.tree.map(lambda x: x.dtype, got) == jax.tree.map(
    lambda x: x.dtype, got_again
  )
  for i in range(2):
    pick = lambda tree, i=i: jax.tree.map(lambda x: x[i], tree)  # noqa: E731
    alone, _ = run_update(pick(states), batch, rewards, keys[i], STEP0)
    chex.assert_trees_all_close(pick(got), alone, atol=2e-5)


def test_a_term_needs_an_agent_that_remembers_it(batch):
  agent = make_sac(OPTIONS, ref.STATES, ref.ACTIONS)
  state = agent.init(jax.random.key(0))
  assert state.term is None
  with pytest.raises(ValueError, match='regularised=True'):
    agent.learn(state, batch, jnp.ones(ref.BATCH), jax.random.key(0), 0, _push(1.0, 1))


def test_a_bandit_is_learned_in_seconds():
  """One state, reward -(a - 0.5)^2: the value is known and so is the best action."""
  options = dataclasses.replace(
    OPTIONS, hidden_size=32, actor_learning_rate=3e-3, critic_learning_rate=3e-3
  )
  agent = make_sac(dataclasses.replace(options, discount=0.0), 1, 1)
  obs = jnp.ones((64, 1))
  ends = jnp.zeros(64, bool)

  def one(carry, t):
    s, key = carry
    key, act_key, learn_key = jax.random.split(key, 3)
    action = jax.random.uniform(act_key, (64, 1), minval=-1.0, maxval=1.0)
    rewards = -10.0 * jnp.square(action[:, 0] - 0.5)
    batch = Transitions(obs, action, obs, ends, ends)
    return (update(agent, s, batch, rewards, learn_key, t)[0], key), None

  @jax.jit
  def run(key):
    carry = (agent.init(key), key)
    (s, _), _ = jax.lax.scan(one, carry, jnp.arange(1000))
    mean, log_std = agent.policy(agent.actor_params(s), obs[:1])
    grid = jnp.linspace(-0.8, 0.8, 9)[:, None]
    values = agent.q_values(s.critic, jnp.ones((9, 1)), grid)
    return jnp.tanh(mean[0, 0]), log_std[0, 0], values

  action, log_std, values = run(jax.random.key(0))
  assert float(action) == pytest.approx(0.5, abs=0.1)
  assert float(log_std) < -0.5
  want = -10.0 * np.square(np.linspace(-0.8, 0.8, 9) - 0.5)
  np.testing.assert_allclose(values, np.stack([want, want]), atol=1.0)
