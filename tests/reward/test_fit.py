import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rating_reference as reference
from scipy import stats

from rlfb_jax.core.networks import Layer
from rlfb_jax.feedback import rating_store as stores
from rlfb_jax.feedback.answers import usable_labels
from rlfb_jax.feedback.clips import Clip
from rlfb_jax.reward.fit import make_rating_fit
from rlfb_jax.reward.model import make_reward_model
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.shuffle import uniform_order

H, DS, DA = 4, 3, 1
SMALL = {'hidden_size': 8, 'hidden_layers': 2, 'minibatch_size': 16, 'min_ragged': 4}
KEY = jax.random.key(7)


CAPACITY = 60


def options(**kwargs):
  return RewardOptions(**{**SMALL, **kwargs})


THREE_PASSES = options(max_passes=3, stop_accuracy=1.0)


@functools.cache
def fit_of(opts):
  """One compiled program per options; the tests share what they can."""
  return jax.jit(make_rating_fit(opts, 3))


def labelled(size, n=3, seed=0, ratings=None, skip=()):
  """A store of random clips rated by a linear reward in equal quantiles."""
  rng = np.random.default_rng(seed)
  obs = rng.normal(size=(size, H, DS)) * [1, 3, 0.2] + 2
  action = rng.uniform(-1, 1, size=(size, H, DA))
  true = (obs[..., 0] - 0.3 * obs[..., 1] + action[..., 0]).sum(axis=1)
  if ratings is None:
    ratings = np.searchsorted(np.quantile(true, np.arange(1, n) / n), true)
  clip = Clip(
    *(jnp.asarray(x, jnp.float32) for x in (obs, action, np.zeros((size, H, 2))))
  )
  skipped = jnp.zeros(size, bool).at[jnp.asarray(skip, int)].set(True)
  store = stores.init_ratings(CAPACITY, H, DS, DA, 2)
  store = stores.append(
    store, clip, jnp.asarray(ratings, jnp.int32), skipped, env_steps=0
  )
  return store, true


def start(opts, seed=0):
  model = make_reward_model(opts, DS, DA)
  return model, model.init(jax.random.key(seed))


def equal(a, b):
  return all(
    np.array_equal(x, y)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def select(tree, i):
  return jax.tree.map(lambda x: x[i], tree)


def float64_session(opts, state, store, key, passes, n):
  """The whole session in NumPy: whitening, shuffles, ragged batches, Adam."""
  usable = np.asarray(usable_labels(store))
  obs = np.asarray(store.clip.obs, float)
  flat = obs[usable].reshape(-1, DS)
  x = (obs - flat.mean(0)) / flat.std(0)
  x = np.concatenate([x, np.asarray(store.clip.action, float)], axis=-1)
  ratings = np.asarray(store.rating)
  count, size = usable.sum(), opts.minibatch_size
  members, accuracy = [], []
  for k in range(opts.ensemble_size):
    layers = [
      (np.asarray(p.kernel[k], float), np.asarray(p.bias[k], float))
      for p in state.params
    ]
    adam = reference.Adam(layers, opts.learning_rate)
    for p in range(passes):
      pass_key = jax.random.split(jax.random.fold_in(key, p), opts.ensemble_size)[k]
      order = np.asarray(uniform_order(pass_key, jnp.asarray(usable)))[:count]
      seen = correct = 0
      losses = []
      for first in range(0, count, size):
        index = order[first : first + size]
        if first and len(index) < opts.min_ragged:
          continue
        rows = x[index].reshape(-1, DS + DA)
        hidden, out = reference.forward(layers, rows)
        returns = out.reshape(len(index), H).sum(axis=1)
        y = ratings[index]
        losses.append(reference.loss(returns, y, n))
        d_returns = reference.loss_gradient(returns, y, n)
        grads = reference.backward(layers, hidden, out, np.repeat(d_returns, H))
        layers = adam.step(layers, grads)
        normalised = reference.normalise(returns)
        tau = reference.boundaries(normalised, y, n, 'midpoint')
        best = reference.quadratic_logits(normalised, tau, 30.0).argmax(-1)
        seen, correct = seen + len(index), correct + np.sum(best == y)
    members.append(layers)
    accuracy.append((np.mean(losses), correct / seen))
  return members, np.mean(accuracy, axis=0)


@pytest.mark.parametrize('size', [42, 35])  # 16 + 16 + 10, and 16 + 16 + 3 dropped.
def test_session_matches_float64(size):
  opts = THREE_PASSES
  _, state = start(opts)
  store, _ = labelled(size + 2, skip=(5, size))
  new, metrics = fit_of(opts)(KEY, state, store)
  members, (loss, accuracy) = float64_session(opts, state, store, KEY, 3, 3)
  for k, layers in enumerate(members):
    for got, (kernel, bias) in zip(select(new.params, k), layers, strict=True):
      np.testing.assert_allclose(got.kernel, kernel, atol=2e-5)
      np.testing.assert_allclose(got.bias, bias, atol=2e-5)
  np.testing.assert_allclose(metrics['reward_loss'], loss, rtol=1e-3)
  np.testing.assert_allclose(metrics['reward_accuracy'], accuracy, rtol=1e-5)
  assert int(metrics['reward_passes']) == 3
  assert int(metrics['reward_labels']) == size
  batches = 3 * (3 if size == 42 else 2)
  np.testing.assert_array_equal(new.num_updates, [batches] * 3)
  told = np.asarray(store.rating)[np.asarray(usable_labels(store))]
  np.testing.assert_array_equal(metrics['class_counts'], np.bincount(told, minlength=3))


def test_recovers_a_linear_reward_from_1000_ratings():
  """A labelling session at the published settings, on segments of 10 steps."""
  rng = np.random.default_rng(0)
  size, steps, ds, da, n = 1400, 10, 6, 2, 4
  drift = rng.normal(size=(size, 1, ds))
  obs = rng.normal(size=(size, steps, ds)) + drift
  action = np.clip(rng.normal(size=(size, steps, da)), -1, 1)
  weights = rng.normal(size=ds + da)
  true = (np.concatenate([obs, action], -1) @ weights).sum(axis=1)
  ratings = np.clip(np.floor(n * (true + 40) / 80), 0, n - 1).astype(int)
  assert np.bincount(ratings, minlength=n).min() > 50
  obs, action = jnp.asarray(obs, jnp.float32), jnp.asarray(action, jnp.float32)
  opts = RewardOptions(hidden_size=64, max_passes=25)
  model = make_reward_model(opts, ds, da)
  store = stores.init_ratings(1000, steps, ds, da, 1)
  train = slice(0, 1000)
  clip = Clip(obs[train], action[train], jnp.zeros((1000, steps, 1)))
  store = stores.append(
    store, clip, jnp.asarray(ratings[train]), jnp.zeros(1000, bool), env_steps=0
  )
  state, metrics = jax.jit(make_rating_fit(opts, n))(KEY, model.init(KEY), store)
  # Unseen segments.
  r_hat = model.r_hat(state, obs[1000:], action[1000:]).sum(axis=1)
  assert stats.spearmanr(r_hat, true[1000:]).statistic > 0.9
  before = model.r_hat(model.init(KEY), obs[1000:], action[1000:]).sum(axis=1)
  assert stats.spearmanr(before, true[1000:]).statistic < 0.7
  assert float(metrics['reward_accuracy']) > 0.8


def test_stops_after_the_pass_that_is_accurate_enough():
  opts = options(max_passes=200, stop_accuracy=0.8, learning_rate=1e-2)
  _, state = start(opts)
  store, _ = labelled(30)
  _, metrics = fit_of(opts)(KEY, state, store)
  assert 1 < int(metrics['reward_passes']) < 200
  assert float(metrics['reward_accuracy']) > 0.8


def test_labels_that_cannot_teach_change_nothing():
  _, state = start(THREE_PASSES)
  one_class, _ = labelled(30, ratings=np.ones(30))
  new, metrics = fit_of(THREE_PASSES)(KEY, state, one_class)
  assert equal(new.params, state.params)
  assert equal(new.opt_state, state.opt_state)
  assert int(metrics['reward_passes']) == 1
  assert int(metrics['reward_skipped']) == 6  # 2 minibatches of 3 members.
  np.testing.assert_array_equal(new.num_updates, 0)
  assert float(metrics['reward_loss']) == 0
  skipped, _ = labelled(30, skip=range(30))
  for empty in (stores.init_ratings(CAPACITY, H, DS, DA, 2), skipped):
    new, metrics = fit_of(THREE_PASSES)(KEY, state, empty)
    assert equal(new, state)
    assert int(metrics['reward_passes']) == 0


def test_rare_class_skips_minibatches_and_only_those():
  _, state = start(THREE_PASSES)
  store, _ = labelled(32, ratings=np.arange(32) == 3)
  new, metrics = fit_of(THREE_PASSES)(KEY, state, store)
  # One of the two minibatches of each pass holds the one label of class 1.
  passes = int(metrics['reward_passes'])
  assert int(metrics['reward_skipped']) == 3 * passes
  np.testing.assert_array_equal(new.num_updates, passes)
  np.testing.assert_array_equal(new.opt_state[0].count, passes)


def test_non_finite_member_is_contained_and_counted():
  _, state = start(THREE_PASSES)
  store, _ = labelled(32)
  clean, _ = fit_of(THREE_PASSES)(KEY, state, store)
  broken = state.params[0].kernel.at[0, 0, 0].set(jnp.nan)
  params = (Layer(broken, state.params[0].bias), *state.params[1:])
  new, metrics = fit_of(THREE_PASSES)(KEY, state.replace(params=params), store)
  assert int(metrics['reward_non_finite']) == 6
  assert equal(select(new.params, slice(1, 3)), select(clean.params, slice(1, 3)))
  np.testing.assert_array_equal(new.num_updates, [0, 6, 6])
  assert np.all(np.isfinite(new.params[1].kernel))


def test_more_labels_compile_nothing():
  _, state = start(THREE_PASSES)
  fit = fit_of(THREE_PASSES)
  state, _ = fit(KEY, state, labelled(3)[0])
  programs = fit._cache_size()
  for size in (16, 40, 60):
    state, _ = fit(KEY, state, labelled(size)[0])
  assert fit._cache_size() == programs


@pytest.mark.parametrize('batching', ['sequential', 'parallel'])
def test_seed_that_stopped_stays_as_it_is_while_others_go_on(batching):
  opts = options(
    max_passes=40, stop_accuracy=0.9, learning_rate=1e-2, seed_batching=batching
  )
  fit = jax.jit(jax.vmap(make_rating_fit(opts, 3)))
  quick, _ = labelled(30, n=2)
  slow, _ = labelled(30, ratings=np.random.default_rng(0).integers(0, 3, 30))
  _, state = start(opts)

  def pair(a, b):
    return jax.tree.map(lambda x, y: jnp.stack([x, y]), a, b)

  keys, states = jax.random.split(KEY, 2), pair(state, state)
  new, metrics = fit(keys, states, pair(quick, slow))
  passes = np.asarray(metrics['reward_passes'])
  assert passes[0] < passes[1]
  alone, _ = fit(keys, states, pair(quick, quick))
  assert equal(select(new, 0), select(alone, 0))
  # And a seed among others is the seed alone.
  single, metrics = fit_of(options(**{**vars(opts), 'seed_batching': 'auto'}))(
    keys[0], state, quick
  )
  assert int(metrics['reward_passes']) == passes[0]
  for a, b in zip(
    jax.tree.leaves(select(new.params, 0)), jax.tree.leaves(single.params), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-3)


def test_standardised_members_have_mean_0_and_std_1_over_the_labels():
  opts = options(max_passes=2, standardise=True)
  model, state = start(opts)
  store, _ = labelled(40, skip=(1, 2))
  state, _ = fit_of(opts)(KEY, state, store)
  usable = np.asarray(usable_labels(store))
  members = model.r_hat_members(
    state, store.clip.obs[usable], store.clip.action[usable]
  ).reshape(3, -1)
  np.testing.assert_allclose(members.mean(axis=1), 0.0, atol=1e-4)
  np.testing.assert_allclose(members.std(axis=1), 1.0, rtol=1e-3)


def test_every_flag_trains():
  store, true = labelled(60)
  for flags in (
    {'loss': 'mae', 'stratified': True, 'class_weights': True},
    {'boundaries': 'order_stat', 'sharpness_mode': 'n2', 'whiten': False},
    {'head': 'sigmoid'},
    {'head': 'relu'},
  ):
    opts = options(max_passes=60, learning_rate=3e-3, **flags)
    model, state = start(opts)
    state, _ = fit_of(opts)(KEY, state, store)
    r_hat = model.r_hat(state, store.clip.obs, store.clip.action).sum(axis=1)
    assert stats.spearmanr(r_hat, true).statistic > 0.75, flags


def test_refusal():
  with pytest.raises(ValueError, match='num_classes=1'):
    make_rating_fit(options(), 1)
