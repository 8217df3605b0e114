"""PPO's update: what it must change, what it must leave, and what it survives."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlfb_jax.agents import ppo
from rlfb_jax.agents.ppo.update import (
  Batch,
  _prepare,
  adapt_pace,
  clip,
  minibatch_loss,
)
from rlfb_jax.agents.regulariser import Regulariser
from rlfb_jax.core.networks import apply_mlp
from rlfb_jax.core.normalization import normalize

OPTIONS = ppo.PPOOptions(
  num_envs=4,
  rollout_steps=16,
  num_epochs=2,
  minibatch_size=16,
  hidden_size=8,
  hidden_layers=2,
  learning_rate=1e-3,
)


def _agent_and_rollout(options=OPTIONS):
  state = ppo.init_state(jax.random.key(0), 3, 2, options)
  obs = jax.random.normal(jax.random.key(1), (16, 4, 3))
  pre_tanh, log_prob = ppo.act(state, obs, jax.random.key(2), options)
  rollout = ppo.Rollout(
    obs=obs,
    pre_tanh=pre_tanh,
    log_prob=log_prob,
    final_obs=jnp.roll(obs, -1, axis=0),
    terminated=jnp.zeros((16, 4), bool),
    truncated=jnp.zeros((16, 4), bool).at[-1].set(True),
  )
  rewards = jnp.tanh(pre_tanh[..., 0])
  return state, rollout, rewards


def _update(options=OPTIONS, **kwargs):
  state, rollout, rewards = _agent_and_rollout(options)
  rewards = kwargs.pop('rewards', rewards)
  return state, *jax.jit(
    lambda s, r: ppo.update(
      s, r, rewards, jax.random.key(3), jnp.float32(0.0), options, **kwargs
    )
  )(state, rollout)


def test_rewarded_actions_become_likelier():
  options = dataclasses.replace(OPTIONS, num_epochs=30)
  state, after, _ = _update(options)
  obs = jax.random.normal(jax.random.key(9), (256, 3))
  before_mean, _ = ppo.policy(state.params.actor, state.statistics, obs, options)
  after_mean, _ = ppo.policy(after.params.actor, state.statistics, obs, options)
  assert float(jnp.mean(after_mean[:, 0] - before_mean[:, 0])) > 0.05


@pytest.mark.parametrize('terminal', [False, True])
def test_advantages_and_targets_are_those_of_a_loop_in_float64(terminal):
  """Ends in all combinations, and last observations that are not the next ones."""
  options = dataclasses.replace(OPTIONS, time_limits_terminal=terminal)
  state, rollout, rewards = _agent_and_rollout()
  rng = np.random.default_rng(0)
  statistics = state.statistics.replace(
    count=jnp.float32(4.0),
    mean=jnp.asarray([1.0, -1.0, 0.0]),
    m2=jnp.asarray([1.0, 16.0, 4.0]),
  )
  state = state.replace(statistics=statistics)
  rollout = rollout.replace(
    final_obs=jnp.asarray(rng.normal(size=(16, 4, 3)), jnp.float32),
    terminated=jnp.asarray(rng.random((16, 4)) < 0.2),
    truncated=jnp.asarray(rng.random((16, 4)) < 0.2),
  )
  batch, _ = jax.jit(_prepare, static_argnums=4)(state, rollout, rewards, None, options)

  def value(obs):
    x = (np.asarray(obs, np.float64) - [1.0, -1.0, 0.0]) / [0.5, 2.0, 1.0]
    x = np.clip(x, -OPTIONS.observation_clip, OPTIONS.observation_clip)
    *hidden, last = state.params.critic
    for layer in hidden:
      x = np.tanh(x @ np.asarray(layer.kernel, np.float64) + np.asarray(layer.bias))
    return (x @ np.asarray(last.kernel, np.float64) + np.asarray(last.bias))[..., 0]

  values, after = value(rollout.obs), value(rollout.final_obs)
  expected, running = np.zeros((16, 4)), np.zeros(4)
  for t in reversed(range(16)):
    ended = np.asarray(rollout.terminated[t])
    cut = ended | np.asarray(rollout.truncated[t])
    delta = np.asarray(rewards[t]) - values[t]
    worthless = cut if terminal else ended
    delta = delta + OPTIONS.discount * np.where(worthless, 0.0, after[t])
    running = delta + OPTIONS.discount * OPTIONS.gae_lambda * np.where(cut, 0, running)
    expected[t] = running
  np.testing.assert_allclose(batch.advantages, expected.reshape(-1), atol=2e-4)
  np.testing.assert_allclose(batch.targets, (expected + values).reshape(-1), atol=2e-4)


def test_the_loss_is_the_sum_of_its_three_parts():
  """Against NumPy in float64: surrogate, value and entropy, each with its weight."""
  options = dataclasses.replace(
    OPTIONS, value_coefficient=0.7, entropy_coefficient=0.03, initial_log_std=-0.4
  )
  state, rollout, _ = _agent_and_rollout(options)
  rng = np.random.default_rng(1)
  advantages, targets, nudge = rng.normal(size=(3, 64)).astype(np.float32)
  inputs = rollout.obs.reshape(-1, 3)
  batch = Batch(
    inputs=inputs,
    pre_tanh=rollout.pre_tanh.reshape(-1, 2),
    old_log_prob=rollout.log_prob.reshape(-1) + 0.5 * nudge,
    advantages=jnp.asarray(advantages),
    targets=jnp.asarray(targets),
    shaping=None,
  )
  loss, metrics = minibatch_loss(state.params, batch, 0.3, options)

  def network(layers, x):
    *hidden, last = [
      tuple(np.asarray(a, np.float64) for a in layer) for layer in layers
    ]
    for kernel, bias in hidden:
      x = np.tanh(x @ kernel + bias)
    return x @ last[0] + last[1]

  x = np.asarray(inputs, np.float64)
  z = (np.asarray(batch.pre_tanh) - network(state.params.actor.mlp, x)) / np.exp(-0.4)
  log_prob = np.sum(-0.5 * z**2 + 0.4 - 0.5 * np.log(2 * np.pi), axis=1)
  ratio = np.exp(log_prob - np.asarray(batch.old_log_prob, np.float64))
  assert 0.2 < np.mean((ratio < 0.7) | (ratio > 1.3)) < 0.8
  standard = (advantages - advantages.mean()) / advantages.std()
  surrogate = -np.mean(
    np.minimum(ratio * standard, np.clip(ratio, 0.7, 1.3) * standard)
  )
  value = np.mean((network(state.params.critic, x)[:, 0] - targets) ** 2)
  entropy = 2 * (-0.4 + 0.5 * np.log(2 * np.pi * np.e))
  np.testing.assert_allclose(
    loss, surrogate + 0.7 * value - 0.03 * entropy, rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(metrics['policy_loss'], surrogate, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('decay', [False, True])
def test_the_step_size_follows_progress_where_it_decays(decay):
  options = dataclasses.replace(
    OPTIONS, num_epochs=1, minibatch_size=64, learning_rate_decay=decay
  )
  state, rollout, rewards = _agent_and_rollout(options)

  @jax.jit
  def step(progress):
    key = jax.random.key(3)
    after, _ = ppo.update(state, rollout, rewards, key, progress, options)
    return jax.tree.map(jnp.subtract, after.params.critic, state.params.critic)

  # The critic's one step does not know the clip, which has a schedule of its own.
  start, half = step(jnp.float32(0.0)), step(jnp.float32(0.5))
  for whole, part in zip(jax.tree.leaves(start), jax.tree.leaves(half), strict=True):
    np.testing.assert_allclose(part, (0.5 if decay else 1.0) * whole, atol=1e-7)
    assert np.abs(whole).max() > 1e-4


def test_statistics_are_fixed_in_the_update_and_fold_in_the_rollout_after():
  _, after, _ = _update()
  _, rollout, _ = _agent_and_rollout()
  rows = np.asarray(rollout.obs, np.float64).reshape(-1, 3)
  np.testing.assert_allclose(after.statistics.mean, rows.mean(0), atol=1e-5)
  np.testing.assert_allclose(after.statistics.std, rows.std(0), rtol=1e-4)


def test_full_progress_closes_the_clip():
  state, rollout, rewards = _agent_and_rollout()
  after, metrics = ppo.update(
    state, rollout, rewards, jax.random.key(3), jnp.float32(1.0), OPTIONS
  )
  # With a clip of zero only the first ratio of exactly one lets a gradient through.
  assert float(metrics['clip_fraction']) > 0.9
  assert np.isfinite(float(metrics['policy_loss']))
  chex.assert_tree_all_finite(after.params)


def test_a_non_finite_reward_is_counted_and_leaves_the_parameters_finite():
  _, _, rewards = _agent_and_rollout()
  state, after, metrics = _update(rewards=rewards.at[3, 1].set(jnp.nan))
  assert int(after.skipped_updates) > 0
  assert float(metrics['non_finite_updates']) == int(after.skipped_updates)
  chex.assert_tree_all_finite(after.params)
  chex.assert_trees_all_equal_shapes(state.params, after.params)


def test_an_update_that_is_left_out_moves_nothing():
  options = dataclasses.replace(OPTIONS, num_epochs=1, minibatch_size=64)
  state, rollout, rewards = _agent_and_rollout(options)
  key, progress = jax.random.key(3), jnp.float32(0.0)
  # Adam has moments by now, which would move the parameters without a gradient.
  moved, _ = ppo.update(state, rollout, rewards, key, progress, options)
  after, _ = ppo.update(moved, rollout, rewards * jnp.nan, key, progress, options)
  assert int(after.skipped_updates) == 1
  chex.assert_trees_all_equal(after.params, moved.params)
  chex.assert_trees_all_equal(after.optimizer, moved.optimizer)


def test_a_spread_at_its_bound_comes_back():
  low, high = OPTIONS.min_log_std, OPTIONS.max_log_std
  state, _, _ = _agent_and_rollout()

  def updated(log_std):
    actor = state.params.actor.replace(log_std=jnp.full(2, log_std))
    wide = state.replace(params=state.params.replace(actor=actor))
    obs = jax.random.normal(jax.random.key(1), (16, 4, 3))
    pre_tanh, log_prob = ppo.act(wide, obs, jax.random.key(2), OPTIONS)
    _, rollout, _ = _agent_and_rollout()
    rollout = rollout.replace(pre_tanh=pre_tanh, log_prob=log_prob)
    # Close to the mean is good, so that the spread must shrink.
    rewards = -jnp.sum(jnp.square(pre_tanh), axis=-1)
    after, _ = ppo.update(
      wide, rollout, rewards, jax.random.key(3), jnp.float32(0.0), OPTIONS
    )
    return np.asarray(after.params.actor.log_std)

  assert np.all(updated(high) < high)
  beyond = updated(high + 0.1)
  assert np.all(beyond <= high)
  assert np.all(updated(low - 0.1) >= low)


def test_one_bad_seed_does_not_touch_the_others():
  state, rollout, rewards = _agent_and_rollout()
  good = jnp.stack([rewards, rewards])
  bad = good.at[1, 0, 0].set(jnp.inf)
  run = jax.jit(
    jax.vmap(
      lambda r: (
        ppo.update(state, rollout, r, jax.random.key(3), jnp.float32(0.0), OPTIONS)[
          0
        ].params
      )
    )
  )
  clean, dirty = run(good), run(bad)
  pick = lambda tree: jax.tree.map(lambda x: x[0], tree)  # noqa: E731
  chex.assert_trees_all_equal(pick(clean), pick(dirty))


def test_regulariser_enters_the_actor_alone():
  def push(actor, key):
    del key
    return -jnp.sum(actor.mlp[-1].bias), {'push': jnp.float32(1.0)}

  def add(rl, term, approx_kl, signal_norm=None):
    del approx_kl, signal_norm
    return jax.tree.map(lambda a, b: a + 100.0 * b, rl, term), {}

  term = Regulariser(loss=push, combine=add, refresh_every=2)
  loose = dataclasses.replace(OPTIONS, max_grad_norm=1e6)
  _, plain, _ = _update(loose)
  _, pushed, metrics = _update(loose, regulariser=term)
  assert float(metrics['push']) == 1.0
  moved = pushed.params.actor.mlp[-1].bias - plain.params.actor.mlp[-1].bias
  assert float(jnp.min(moved)) > 0.0
  chex.assert_trees_all_close(plain.params.critic, pushed.params.critic, atol=1e-6)


def test_the_signal_given_to_a_regulariser_is_that_of_the_reward_alone():
  still = dataclasses.replace(OPTIONS, learning_rate=1e-12)

  def signals(strength):
    def add(rl, term, approx_kl, signal_norm):
      del approx_kl
      joined = jax.tree.map(lambda a, b: a + strength * b, rl, term)
      return joined, {'signal': signal_norm, 'rl': optax.tree.norm(rl)}

    term = Regulariser(lambda actor, key: (jnp.sum(actor.log_std), {}), add, 2)
    return _update(still, regulariser=term)[2]

  alone, pushed = signals(0.0), signals(100.0)
  assert 0 < alone['signal'] < alone['rl']
  np.testing.assert_allclose(alone['signal'], pushed['signal'], rtol=1e-4)


def test_shaping_moves_the_mean_where_it_says():
  options = dataclasses.replace(OPTIONS, num_epochs=30, value_coefficient=0.0)
  state, rollout, likes = _agent_and_rollout(options)
  obs = jax.random.normal(jax.random.key(9), (256, 3))

  @jax.jit
  def mean(shaping):
    # Without a reward the standardised advantages still carry the critic's own
    # errors: what counts is the difference to no shaping.
    nothing, start = jnp.zeros((16, 4)), jnp.float32(0.0)
    key = jax.random.key(3)
    after, _ = ppo.update(state, rollout, nothing, key, start, options, shaping=shaping)
    return ppo.policy(after.params.actor, after.statistics, obs, options)[0][:, 0]

  plain = mean(0.0 * likes)
  assert float(jnp.mean(mean(likes) - plain)) > 0.05
  assert float(jnp.mean(mean(-likes) - plain)) < -0.05


def test_shaping_never_moves_the_spread():
  shaping = jax.random.normal(jax.random.key(5), (16, 4))
  state, rollout, _ = _agent_and_rollout()

  def spread_gradient(with_shaping):
    batch = Batch(
      inputs=rollout.obs.reshape(-1, 3),
      pre_tanh=rollout.pre_tanh.reshape(-1, 2),
      old_log_prob=rollout.log_prob.reshape(-1),
      advantages=jax.random.normal(jax.random.key(6), (64,)),
      targets=jnp.zeros(64),
      shaping=shaping.reshape(-1) if with_shaping else None,
    )
    grads, _ = jax.grad(minibatch_loss, has_aux=True)(state.params, batch, 0.4, OPTIONS)
    return grads.actor.log_std

  np.testing.assert_allclose(spread_gradient(True), spread_gradient(False), rtol=1e-6)


def test_networks_are_clipped_together_or_each_by_itself():
  grads = ppo.PPOParams(
    actor=ppo.ActorParams(
      ((jnp.asarray([3.0]), jnp.asarray([4.0])),), jnp.asarray([0.0])
    ),
    critic=((jnp.asarray([30.0]), jnp.asarray([40.0])),),
  )
  options = dataclasses.replace(OPTIONS, max_grad_norm=1.0)
  joint, norm, finite = clip(grads, options)
  assert bool(finite)
  assert float(norm) == pytest.approx(np.hypot(5, 50), rel=1e-5)
  assert float(optax.tree.norm(joint)) == pytest.approx(1.0, rel=1e-5)
  assert float(optax.tree.norm(joint.actor)) == pytest.approx(0.0995, rel=1e-3)
  apart, norm, finite = clip(grads, dataclasses.replace(options, separate_clip=True))
  assert float(optax.tree.norm(apart.actor)) == pytest.approx(1.0, rel=1e-5)
  assert float(optax.tree.norm(apart.critic)) == pytest.approx(1.0, rel=1e-5)
  assert float(norm) == pytest.approx(np.hypot(5, 50), rel=1e-5)
  assert bool(finite)


@pytest.mark.parametrize('separate', [False, True])
def test_a_network_whose_partner_is_not_finite_is_not_to_be_stepped(separate):
  options = dataclasses.replace(OPTIONS, separate_clip=separate)
  grads = ppo.PPOParams(
    actor=ppo.ActorParams((), jnp.asarray([3.0])), critic=((jnp.asarray([jnp.nan]),),)
  )
  _, norm, finite = clip(grads, options)
  assert not bool(finite)
  assert float(norm) == 0.0


def test_the_pace_follows_the_divergence():
  pace = jnp.float32(1.0)
  assert float(adapt_pace(pace, jnp.float32(0.05), 0.02)) == pytest.approx(1 / 1.5)
  assert float(adapt_pace(pace, jnp.float32(0.03), 0.02)) == 1.0
  assert float(adapt_pace(pace, jnp.float32(0.001), 0.02)) == 1.5
  assert float(adapt_pace(pace, jnp.float32(jnp.nan), 0.02)) == pytest.approx(1 / 1.5)
  assert float(adapt_pace(pace, jnp.float32(0.5), 0.0)) == 1.0


def test_a_target_divergence_holds_updates_to_it():
  options = dataclasses.replace(OPTIONS, learning_rate=0.03, num_epochs=8)

  def run(options):
    state, rollout, rewards = _agent_and_rollout(options)
    update = jax.jit(
      lambda s, k: ppo.update(s, rollout, rewards, k, jnp.float32(0.0), options)
    )
    for i in range(8):
      after, metrics = update(state, jax.random.key(i))
      state = state.replace(pace=after.pace)  # The same lesson, at another pace.
    return metrics

  loose = run(options)
  held = run(dataclasses.replace(options, target_kl=0.02))
  assert float(loose['approx_kl']) > 0.1
  assert float(held['approx_kl']) < 0.06
  assert float(held['pace']) < 0.5


def test_a_minibatch_that_does_not_divide_is_refused_with_the_nearest():
  with pytest.raises(ValueError, match='try 128'):
    ppo.PPOOptions(num_envs=32, rollout_steps=500, minibatch_size=127)


def test_value_head_alone_is_drawn_again():
  state, _, _ = _agent_and_rollout()
  fresh = ppo.reset_value_head(jax.random.key(7), state.params)
  chex.assert_trees_all_equal(fresh.actor, state.params.actor)
  chex.assert_trees_all_equal(fresh.critic[:-1], state.params.critic[:-1])
  assert not np.allclose(fresh.critic[-1].kernel, state.params.critic[-1].kernel)


def test_a_spread_may_depend_on_the_observation_and_is_left_out_of_the_export():
  options = dataclasses.replace(OPTIONS, state_dependent_std=True)
  state, after, metrics = _update(options)
  obs = jax.random.normal(jax.random.key(11), (32, 3))
  mean, log_std = ppo.policy(after.params.actor, state.statistics, obs, options)
  assert mean.shape == log_std.shape == (32, 2)
  assert float(jnp.std(log_std, axis=0).min()) > 1e-6
  inputs = normalize(state.statistics, obs, options.observation_clip)
  layers = ppo.mean_network(after.params.actor)
  # Two programs may round the same sums otherwise.
  same = apply_mlp(layers, inputs, jnp.tanh)
  np.testing.assert_allclose(same, mean, rtol=1e-5, atol=1e-7)
  expected = jnp.mean(jnp.sum(log_std, axis=-1)) + 1 + jnp.log(2 * jnp.pi)
  assert float(metrics['entropy']) == pytest.approx(float(expected), abs=0.5)


@pytest.mark.parametrize('beyond', [-9.0, 9.0])
def test_a_spread_that_the_network_took_beyond_its_bounds_comes_back(beyond):
  options = dataclasses.replace(OPTIONS, state_dependent_std=True)
  state = ppo.init_state(jax.random.key(0), 3, 2, options)
  actor = state.params.actor
  last = actor.mlp[-1]
  far = last._replace(bias=last.bias.at[2:].set(beyond))
  actor = actor.replace(mlp=(*actor.mlp[:-1], far))
  obs = jax.random.normal(jax.random.key(1), (8, 3))
  bound = options.min_log_std if beyond < 0 else options.max_log_std

  def miss(actor):
    _, log_std = ppo.policy(actor, state.statistics, obs, options)
    return jnp.mean((log_std - 0.5 * (options.min_log_std + options.max_log_std)) ** 2)

  _, log_std = ppo.policy(actor, state.statistics, obs, options)
  np.testing.assert_allclose(log_std, bound, rtol=1e-5)
  slope = jax.grad(miss)(actor).mlp[-1].bias[2:]
  assert np.all(np.asarray(slope) * beyond > 0)
