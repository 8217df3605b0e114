"""Sessions on pairs, on both kinds of label, and with SURF."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pair_reference
import pytest
import rating_reference as reference
from scipy import stats

from rlfb_jax.core.networks import Layer
from rlfb_jax.feedback import preference_store as pair_stores
from rlfb_jax.feedback import rating_store as rating_stores
from rlfb_jax.feedback import unlabelled_store as unlabelled_stores
from rlfb_jax.feedback.answers import usable_labels
from rlfb_jax.feedback.clips import Clip
from rlfb_jax.reward.fit import make_fit
from rlfb_jax.reward.model import make_reward_model
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.preferences import PreferenceLossOptions
from rlfb_jax.reward.semi_supervised import SurfOptions
from rlfb_jax.reward.shuffle import uniform_order

H, DS, DA, N = 4, 3, 1, 3
CAPACITY = 60
KEY = jax.random.key(7)
PAIRS = PreferenceLossOptions()
SURF = SurfOptions(
  margin=1, crop=1, reward_update=60, threshold=0.9, unlabelled_ratio=2
)


def options(**kwargs):
  small = {'hidden_size': 8, 'hidden_layers': 2, 'minibatch_size': 16, 'min_ragged': 4}
  return RewardOptions(**{**small, **kwargs})


THREE_PASSES = options(max_passes=3, stop_accuracy=1.0)
LONG = options(max_passes=60, stop_accuracy=0.9, learning_rate=1e-2)


@functools.cache
def fit_of(opts, ratings=True, pairs=True, surf=None):
  """One compiled program per kind; the tests share what they can."""
  fit = make_fit(opts, N if ratings else None, PAIRS if pairs else None, surf)
  return jax.jit(fit)


def clips(size, seed, steps=H, scale=(1.0, 3.0, 0.2)):
  rng = np.random.default_rng(seed)
  obs = rng.normal(size=(size, steps, DS)) * scale + 2
  action = rng.uniform(-1, 1, size=(size, steps, DA))
  arrays = obs, action, np.zeros((size, steps, 1))
  return Clip(*(jnp.asarray(x, jnp.float32) for x in arrays))


def true_return(clip):
  obs, action = np.asarray(clip.obs, float), np.asarray(clip.action, float)
  return (obs[..., 0] - 0.3 * obs[..., 1] + action[..., 0]).sum(axis=1)


def rated(size, seed=0, skip=(), **kwargs):
  clip = clips(size, seed, **kwargs)
  true = true_return(clip)
  ratings = np.searchsorted(np.quantile(true, np.arange(1, N) / N), true)
  skipped = jnp.zeros(size, bool).at[jnp.asarray(skip, int)].set(True)
  store = rating_stores.init_ratings(CAPACITY, H, DS, DA, 1)
  return rating_stores.append(store, clip, jnp.asarray(ratings), skipped, env_steps=0)


def compared(size, seed=1, skip=(), steps=H, label=None, margin=0, **kwargs):
  first, second = (clips(size, seed + 50 * i, steps, **kwargs) for i in range(2))
  if label is None:
    judged = [
      true_return(jax.tree.map(lambda x: x[:, margin : steps - margin], c))
      for c in (first, second)
    ]
    label = judged[1] > judged[0]
  skipped = jnp.zeros(size, bool).at[jnp.asarray(skip, int)].set(True)
  store = pair_stores.init_preferences(CAPACITY, steps, DS, DA, 1)
  label = jnp.asarray(label, jnp.float32)
  return pair_stores.append(store, first, second, label, skipped, env_steps=0)


def unseen(size, steps=H + 2):
  store = unlabelled_stores.init_unlabelled(100, steps, DS, DA)
  if not size:
    return store
  return unlabelled_stores.append(store, clips(size, 8, steps), clips(size, 9, steps))


def start(opts=THREE_PASSES, seed=0):
  model = make_reward_model(opts, DS, DA)
  return model, model.init(jax.random.key(seed))


def equal(a, b):
  return all(
    np.array_equal(x, y)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def select(tree, i):
  return jax.tree.map(lambda x: x[i], tree)


def float64_session(opts, state, key, passes, ratings, pairs):
  """Whitening over both stores, laps, shuffles, summed gradients, Adam."""
  stores = {}
  if ratings is not None:
    usable = np.asarray(usable_labels(ratings))
    stores['ratings'] = usable, [ratings.clip], np.asarray(ratings.rating)
  if pairs is not None:
    usable = np.asarray(usable_labels(pairs))
    stores['pairs'] = usable, [pairs.first, pairs.second], np.asarray(pairs.label)
  every = [
    np.asarray(c.obs, float)[u].reshape(-1, DS)
    for u, cs, _ in stores.values()
    for c in cs
  ]
  every = np.concatenate(every)
  mean, std = every.mean(0), every.std(0)

  def inputs(clip, index):
    x = (np.asarray(clip.obs, float)[index] - mean) / std
    x = np.concatenate([x, np.asarray(clip.action, float)[index]], axis=-1)
    return x.reshape(-1, DS + DA)

  size = opts.minibatch_size

  def batches(kind, count):
    whole, rest = divmod(count, size)
    least = opts.min_ragged if kind == 'ratings' else 0
    return whole + (rest > 0 and (whole == 0 or rest >= least))

  members, tallies = [], []
  for k in range(opts.ensemble_size):
    layers = [
      (np.asarray(p.kernel[k], float), np.asarray(p.bias[k], float))
      for p in state.params
    ]
    adam = reference.Adam(layers, opts.learning_rate)
    for p in range(passes):
      member_key = jax.random.split(jax.random.fold_in(key, p), opts.ensemble_size)[k]
      keys = [member_key] if len(stores) == 1 else jax.random.split(member_key, 2)
      counts = {kind: usable.sum() for kind, (usable, _, _) in stores.items()}
      steps = max(batches(kind, count) for kind, count in counts.items())
      tally = {kind: [0, 0, []] for kind in stores}
      for j in range(steps):
        total = [[np.zeros_like(x) for x in layer] for layer in layers]
        for source_key, (kind, (usable, sides, label)) in zip(
          keys, stores.items(), strict=True
        ):
          lap, place = divmod(j, batches(kind, counts[kind]))
          lap_key = source_key
          if len(stores) > 1:
            lap_key = jax.random.fold_in(source_key, 2 * lap)
          order = np.asarray(uniform_order(lap_key, jnp.asarray(usable)))
          index = order[: counts[kind]][place * size : (place + 1) * size]
          passed = [reference.forward(layers, inputs(c, index)) for c in sides]
          returns = np.stack([o.reshape(-1, H).sum(1) for _, o in passed], axis=1)
          y = label[index]
          if kind == 'pairs':
            slope = pair_reference.preference_gradient(returns, y)
            loss = pair_reference.preference_loss(returns, y)
            judged = y != 0.5
            correct = ((returns[:, 1] > returns[:, 0]) == (y > 0.5))[judged]
          else:
            slope = reference.loss_gradient(returns[:, 0], y, N)[:, None]
            loss = reference.loss(returns[:, 0], y, N)
            normalised = reference.normalise(returns[:, 0])
            tau = reference.boundaries(normalised, y, N, 'midpoint')
            best = reference.quadratic_logits(normalised, tau, 30.0).argmax(-1)
            correct = best == y
          weight = opts.pair_weight if kind == 'pairs' else opts.rating_weight
          for side, (hidden, out) in enumerate(passed):
            d_out = weight * np.repeat(slope[:, side], H)
            for mine, new in zip(
              total, reference.backward(layers, hidden, out, d_out), strict=True
            ):
              for i in range(2):
                mine[i] += new[i]
          tally[kind][0] += correct.sum()
          tally[kind][1] += len(correct)
          tally[kind][2].append(loss)
        layers = adam.step(layers, total)
    members.append(layers)
    tallies.append({kind: (c / n, np.mean(x)) for kind, (c, n, x) in tally.items()})
  return members, {kind: np.mean([t[kind] for t in tallies], axis=0) for kind in stores}


def check_params(params, members):
  for k, layers in enumerate(members):
    for got, (kernel, bias) in zip(select(params, k), layers, strict=True):
      np.testing.assert_allclose(got.kernel, kernel, atol=3e-5)
      np.testing.assert_allclose(got.bias, bias, atol=3e-5)


def test_pair_session_matches_float64():
  _, state = start()
  label = np.random.default_rng(3).choice([0.0, 1.0, 0.5], size=37)
  pairs = compared(37, skip=(5, 30), label=label)  # 16 + 16 + 3: none is dropped.
  new, metrics = fit_of(THREE_PASSES, ratings=False)(KEY, state, None, pairs, None)
  members, tallies = float64_session(THREE_PASSES, state, KEY, 3, None, pairs)
  check_params(new.params, members)
  accuracy, loss = tallies['pairs']
  np.testing.assert_allclose(metrics['preference_accuracy'], accuracy, rtol=1e-5)
  np.testing.assert_allclose(metrics['reward_accuracy'], accuracy, rtol=1e-5)
  np.testing.assert_allclose(metrics['reward_loss'], loss, rtol=1e-4)
  assert int(metrics['reward_passes']) == 3
  assert int(metrics['reward_labels']) == 35
  np.testing.assert_array_equal(new.num_updates, [9] * 3)
  assert not any(x.weak_type for x in jax.tree.leaves((new, metrics)))


def test_joint_session_matches_float64_while_the_shorter_store_wraps_round():
  opts = options(max_passes=2, stop_accuracy=1.0, rating_weight=0.5, pair_weight=2.0)
  _, state = start()
  ratings, pairs = rated(20, skip=(4,)), compared(37)  # 2 minibatches against 3.
  new, metrics = fit_of(opts)(KEY, state, ratings, pairs, None)
  members, tallies = float64_session(opts, state, KEY, 2, ratings, pairs)
  check_params(new.params, members)
  np.testing.assert_array_equal(new.num_updates, [6] * 3)
  for kind, name in (('ratings', 'rating'), ('pairs', 'preference')):
    accuracy, loss = tallies[kind]
    np.testing.assert_allclose(metrics[f'{name}_accuracy'], accuracy, rtol=1e-5)
    np.testing.assert_allclose(metrics[f'{name}_loss'], loss, rtol=1e-3)
  both = 0.5 * tallies['ratings'][1] + 2.0 * tallies['pairs'][1]
  np.testing.assert_allclose(metrics['reward_loss'], both, rtol=1e-3)
  assert int(metrics['reward_labels']) == 56
  assert int(metrics['rating_labels']) == 19
  # One store empty: the other alone, and its program is the same one.
  fit = fit_of(opts)
  programs = fit._cache_size()
  new, metrics = fit(KEY, state, rated(1, skip=(0,)), pairs, None)
  assert int(metrics['reward_labels']) == 37
  np.testing.assert_allclose(metrics['reward_accuracy'], metrics['preference_accuracy'])
  np.testing.assert_array_equal(new.num_updates, [6] * 3)
  # Equal pairs are learned from, and nothing about them is right or wrong.
  equals = compared(20, label=np.full(20, 0.5))
  taught, metrics = fit(KEY, state, ratings, equals, None)
  assert not equal(taught.params, fit(KEY, state, ratings, pairs, None)[0].params)
  assert float(metrics['rating_accuracy']) > 0
  np.testing.assert_allclose(metrics['reward_accuracy'], metrics['rating_accuracy'])
  same, metrics = fit(KEY, state, rated(1, skip=(0,)), compared(1, skip=(0,)), None)
  assert equal(same, state)
  assert int(metrics['reward_passes']) == 0
  assert fit._cache_size() == programs


def test_both_kinds_must_be_learned_for_a_session_to_stop():
  _, state = start(LONG)
  ratings = rated(30)
  pairs = compared(30)
  noise = np.random.default_rng(5).integers(0, 2, 60)
  fit = fit_of(LONG)
  new, metrics = fit(KEY, state, ratings, pairs, None)
  assert 1 < int(metrics['reward_passes']) < 60
  assert float(metrics['rating_accuracy']) > 0.9
  assert float(metrics['preference_accuracy']) > 0.9
  _, metrics = fit(KEY, state, ratings, compared(60, label=noise), None)
  assert int(metrics['reward_passes']) == 60
  assert float(metrics['rating_accuracy']) > 0.9
  assert np.all(np.isfinite(new.params[0].kernel))


def test_a_kind_of_no_weight_has_no_say():
  opts = dataclasses.replace(LONG, rating_weight=0.0)
  _, state = start(opts)
  noise = np.random.default_rng(5).integers(0, N, 60)
  store = rated(60)
  store = store.replace(rating=store.rating.at[:60].set(jnp.asarray(noise)))
  fit = fit_of(opts)
  _, metrics = fit(KEY, state, store, compared(30), None)
  # Noise is never learned, and three times as many ratings lengthen no pass.
  assert float(metrics['preference_accuracy']) > 0.9
  assert int(metrics['reward_passes']) < 60
  assert float(metrics['rating_accuracy']) < 0.9
  same, _ = fit(KEY, state, store, compared(1, skip=(0,)), None)
  assert equal(same.params, state.params)
  assert equal(same.opt_state, state.opt_state)


def test_joint_fit_learns_from_each_kind_what_only_it_shows():
  """Rated clips differ mostly in the first feature, compared ones in the second."""
  model, state = start(LONG)
  ratings = rated(60, scale=(1.0, 0.1, 0.2))
  pairs = compared(60, scale=(0.05, 3.0, 0.2))
  fit = fit_of(LONG)
  none = rated(1, skip=(0,)), compared(1, skip=(0,))
  test = clips(300, 77)
  scores = {}
  for name, stores in {
    'both': (ratings, pairs),
    'ratings': (ratings, none[1]),
    'pairs': (none[0], pairs),
  }.items():
    new, _ = fit(KEY, state, *stores, None)
    got = np.asarray(model.r_hat(new, test.obs, test.action)).sum(1)
    scores[name] = stats.spearmanr(got, true_return(test)).statistic
  assert scores['both'] > 0.8
  assert scores['both'] > max(scores['ratings'], scores['pairs']) + 0.05


def test_non_finite_member_is_contained_and_counted():
  _, state = start()
  pairs = compared(32)
  fit = fit_of(THREE_PASSES, ratings=False)
  clean, _ = fit(KEY, state, None, pairs, None)
  broken = state.params[0].kernel.at[0, 0, 0].set(jnp.nan)
  params = (Layer(broken, state.params[0].bias), *state.params[1:])
  new, metrics = fit(KEY, state.replace(params=params), None, pairs, None)
  assert int(metrics['reward_non_finite']) == 6
  assert equal(select(new.params, slice(1, 3)), select(clean.params, slice(1, 3)))
  np.testing.assert_array_equal(new.num_updates, [0, 6, 6])


def test_seeds_are_an_axis():
  states = jax.vmap(start()[0].init)(jax.random.split(KEY, 2))
  keys = jax.random.split(KEY, 2)
  stores = [compared(20), compared(37, seed=3)]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *stores)
  fit = make_fit(THREE_PASSES, None, PAIRS)
  new, _ = jax.jit(jax.vmap(lambda k, s, p: fit(k, s, None, p, None)))(
    keys, states, stacked
  )
  for i, store in enumerate(stores):
    alone, _ = fit_of(THREE_PASSES, ratings=False)(
      keys[i], select(states, i), None, store, None
    )
    for a, b in zip(
      jax.tree.leaves(select(new.params, i)), jax.tree.leaves(alone.params), strict=True
    ):
      np.testing.assert_allclose(a, b, atol=1e-5)


def test_surf_takes_its_steps_and_learns():
  opts = options(learning_rate=1e-2, stop_accuracy=0.1)  # Which it does not heed.
  model, state = start(opts)
  fit = fit_of(opts, ratings=False, surf=SURF)
  pairs = compared(40, steps=H + 2, margin=1)
  new, metrics = fit(KEY, state, None, pairs, unseen(90))
  np.testing.assert_array_equal(new.num_updates, [60 * 40 // 16] * 3)
  assert int(metrics['reward_passes']) == 1
  assert 0.1 < float(metrics['pseudo_label_share']) < 1
  assert float(metrics['preference_accuracy']) > 0.75
  test = clips(300, 77)
  got = np.asarray(model.r_hat(new, test.obs, test.action)).sum(1)
  assert stats.spearmanr(got, true_return(test)).statistic > 0.85
  # Pseudo-labels change what is learned; where there are none, nothing is lost.
  alone, metrics = fit(KEY, state, None, pairs, unseen(0))
  assert not equal(alone.params, new.params)
  assert float(metrics['unlabelled_loss']) == 0
  np.testing.assert_array_equal(alone.num_updates, new.num_updates)
  nothing, _ = fit(KEY, state, None, compared(1, steps=H + 2, skip=(0,)), unseen(90))
  assert equal(nothing, state)


def test_refusal():
  with pytest.raises(ValueError, match='needs something to learn from'):
    make_fit(options())
  with pytest.raises(ValueError, match='num_classes=1'):
    make_fit(options(), 1)
  with pytest.raises(ValueError, match='surf learns from pairs'):
    make_fit(options(), 3, None, SURF)
  with pytest.raises(ValueError, match='given \\(True, False, False\\)'):
    make_fit(options(), None, PAIRS)(KEY, start()[1], rated(3), None, None)
