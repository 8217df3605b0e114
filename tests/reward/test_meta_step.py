import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlfb_jax.core.networks import apply_mlp, orthogonal_mlp
from rlfb_jax.feedback import preference_store as pair_stores
from rlfb_jax.feedback import rating_store as rating_stores
from rlfb_jax.feedback.clips import Clip
from rlfb_jax.reward.meta_options import MetaOptions, is_due
from rlfb_jax.reward.meta_step import make_meta_step, pick_labels
from rlfb_jax.reward.model import make_reward_model
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.preferences import PreferenceLossOptions, preference_loss
from rlfb_jax.reward.ratings import rating_loss

DS, DA, B, H, CAPACITY = 3, 2, 16, 4, 30
REWARD = RewardOptions(hidden_size=8, hidden_layers=1, learning_rate=1e-2)
PAIRS = PreferenceLossOptions()
MODEL = make_reward_model(REWARD, DS, DA)
KEY = jax.random.key(3)


def q_values(params, obs, action):
  x = jnp.concatenate([obs, action], axis=-1)
  return jax.vmap(lambda p: apply_mlp(p, x, jax.nn.relu)[..., 0])(params)


def meta_of(ratings=False, pairs=True, margin=0, session_ratings=None, **kwargs):
  return make_meta_step(
    MetaOptions(**kwargs),
    REWARD,
    MODEL,
    q_values,
    0.05,
    session_labels=10,
    session_ratings=session_ratings,
    margin=margin,
    num_classes=3 if ratings else None,
    pairs=PAIRS if pairs else None,
  )


@functools.cache
def step_of(ratings=False, pairs=True, **kwargs):
  return jax.jit(meta_of(ratings, pairs, **kwargs).step, static_argnames=('combine',))


def with_margins(pairs, margin, junk):
  """The same pairs, stored with so many steps of junk on each side (SURF)."""

  rng = np.random.default_rng(0)

  def widen(x):
    noise = rng.normal(size=(x.shape[0], margin, 2, x.shape[2]))
    before, after = jnp.moveaxis(jnp.asarray(junk * noise, jnp.float32), 2, 0)
    return jnp.concatenate([before, x, after], axis=1)

  sides = (jax.tree.map(widen, clip) for clip in (pairs.first, pairs.second))
  return pairs.replace(**dict(zip(('first', 'second'), sides, strict=True)))


def world(seed=0, skip=(2, 19)):
  """Reward, critics, replay batch and 20 pairs and ratings."""
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  def clip():
    return Clip(normal(20, H, DS), normal(20, H, DA), normal(20, H, 1))

  skipped = jnp.zeros(20, bool).at[jnp.asarray(skip, int)].set(True)
  pairs = pair_stores.init_preferences(CAPACITY, H, DS, DA, 1)
  label = jnp.asarray(rng.integers(0, 2, 20), jnp.float32).at[15].set(0.5)
  pairs = pair_stores.append(pairs, clip(), clip(), label, skipped, env_steps=0)
  ratings = rating_stores.init_ratings(CAPACITY, H, DS, DA, 1)
  rating = jnp.asarray(rng.integers(0, 3, 20))
  ratings = rating_stores.append(ratings, clip(), rating, skipped, env_steps=0)
  keys = jax.random.split(jax.random.key(seed), 3)
  critic = jax.vmap(lambda k: orthogonal_mlp(k, [DS + DA, 16, 16, 1], 1.0, 1.0))(
    keys[:2]
  )
  reward = MODEL.init(keys[2])
  return reward, critic, normal(B, DS), normal(B, DA), normal(B), ratings, pairs


def equal(a, b):
  return all(
    np.array_equal(x, y)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def take(step, meta, world, key=KEY, **kwargs):
  reward, *rest, _, pairs = world
  return step(key, meta, reward, *rest, None, pairs, **kwargs)


def with_momentum(reward):
  """As a supervised fit leaves it."""
  gradient = jax.tree.map(lambda p: 0.01 * p + 0.003, reward.params)
  adam = jax.vmap(optax.adam(REWARD.learning_rate).update)
  _, opt_state = adam(gradient, reward.opt_state, reward.params)
  return reward.replace(opt_state=opt_state)


def test_last_labels_are_the_most_recent_that_were_answered():
  usable = jnp.array([1, 1, 0, 1, 1, 0, 0], bool)
  pick = jax.jit(pick_labels, static_argnums=(2, 3))
  index, mask = pick(KEY, usable, 3, 'last')
  np.testing.assert_array_equal(index, [4, 3, 1])
  assert np.all(mask)
  index, mask = pick(KEY, usable, 9, 'last')  # More than there are rows.
  np.testing.assert_array_equal(index, [4, 3, 1, 0, 4, 4, 4])
  np.testing.assert_array_equal(mask, [1, 1, 1, 1, 0, 0, 0])
  assert not np.any(pick(KEY, usable & False, 3, 'last')[1])


def test_sampled_labels_are_uniform_and_distinct():
  usable = jnp.arange(12) % 3 != 1
  draw = jax.jit(jax.vmap(lambda k: pick_labels(k, usable, 4, 'sample')))
  index, mask = draw(jax.random.split(KEY, 3000))
  assert np.all(mask)
  assert all(len(set(row)) == 4 for row in np.asarray(index))
  counts = np.bincount(np.asarray(index).ravel(), minlength=12)
  np.testing.assert_array_equal(counts[1::3], 0)
  np.testing.assert_allclose(counts[np.asarray(usable)], 1500, atol=5 * 1500**0.5)


def test_shared_adam_is_the_supervised_one_and_keeps_its_momentum():
  reward, *rest = world()
  reward = with_momentum(reward)
  step = step_of(zero_gradient=True, optimiser='shared_adam')
  meta = meta_of(optimiser='shared_adam').init(reward)
  assert meta.opt_state == ()
  new_meta, new, metrics = take(step, meta, (reward, *rest))
  zeros = jax.tree.map(jnp.zeros_like, reward.params)
  adam = optax.adam(REWARD.learning_rate)
  updates, opt_state = jax.vmap(adam.update)(zeros, reward.opt_state, reward.params)
  want = optax.apply_updates(reward.params, updates)
  for a, b in zip(jax.tree.leaves(new.params), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
  assert not equal(new.params, reward.params)
  np.testing.assert_array_equal(new.opt_state[0].count, opt_state[0].count)
  np.testing.assert_array_equal(new.num_updates, 1)
  assert int(new_meta.num_steps) == 1
  # The control still measures what it leaves out.
  assert float(metrics['meta_gradient_norm']) > 0
  # Moments and count go on where the gradient is real, too.
  _, real, _ = take(step_of(optimiser='shared_adam'), meta, (reward, *rest))
  assert not equal(real.params, new.params)
  np.testing.assert_array_equal(real.opt_state[0].count, [2, 2, 2])
  leaves = jax.tree.leaves((new_meta, new, metrics))
  assert not any(x.weak_type for x in leaves)


def test_own_adam_takes_full_steps_and_leaves_the_supervised_one_alone():
  reward, *rest = world()
  reward = with_momentum(reward)
  meta = meta_of(optimiser='own_adam').init(reward)
  step = step_of(optimiser='own_adam', learning_rate=1e-3)
  new_meta, new, metrics = take(step, meta, (reward, *rest))
  moved = jax.tree.map(lambda a, b: jnp.abs(a - b), new.params, reward.params)
  # Adam's first step has the learning rate's size wherever there is a gradient, which
  # is small here.
  assert float(metrics['meta_gradient_norm']) < 1e-2
  sizes = np.concatenate([np.ravel(x) for x in jax.tree.leaves(moved)])
  np.testing.assert_allclose(np.median(sizes), 1e-3, rtol=1e-2)
  assert equal(new.opt_state, reward.opt_state)
  np.testing.assert_array_equal(new_meta.opt_state[0].count, 1)


def test_descent_lowers_the_outer_loss():
  reward, *rest = world()
  meta = meta_of(optimiser='sgd').init(reward)
  step = step_of(optimiser='sgd', learning_rate=30.0)
  losses = []
  for _ in range(30):
    meta, reward, metrics = take(step, meta, (reward, *rest))
    losses.append(float(metrics['meta_loss']))
  assert losses[-1] < losses[0] - 1e-3
  assert np.all(np.diff(losses) < 1e-5)
  assert step._cache_size() == 1


def test_supervised_norm_is_that_of_the_fit_on_the_same_pairs():
  reward, *rest = world()
  _, _, metrics = take(step_of(), meta_of().init(reward), (reward, *rest))
  pairs = rest[-1]
  rows = np.array([i for i in range(18, -1, -1) if i != 2][:10])

  def loss(params):
    state = reward.replace(params=params)
    sums = [
      MODEL.r_hat_members(state, c.obs[rows], c.action[rows]).sum(axis=-1)
      for c in (pairs.first, pairs.second)
    ]
    one = lambda r: preference_loss(r, pairs.label[rows], jnp.ones(10, bool)).loss  # noqa: E731
    return sum(one(r) for r in jnp.stack(sums, axis=-1))

  gradient = jax.grad(loss)(reward.params)
  want = optax.tree.norm(gradient)
  np.testing.assert_allclose(metrics['supervised_gradient_norm'], want, rtol=1e-4)
  assert int(metrics['meta_labels']) == 10
  assert 0 <= float(metrics['meta_accuracy']) <= 1


@pytest.mark.parametrize('junk', [7.0, np.nan])
def test_margins_that_nobody_judged_have_no_part_in_the_outer_step(junk):
  reward, *rest, pairs = world()
  meta = meta_of().init(reward)
  plain = take(step_of(), meta, (reward, *rest, pairs))
  wide = (reward, *rest, with_margins(pairs, 2, junk))
  for got, want in zip(
    jax.tree.leaves(take(step_of(margin=2), meta, wide)),
    jax.tree.leaves(plain),
    strict=True,
  ):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
  assert float(plain[2]['meta_gradient_norm']) > 0
  # With the margins left on, both losses would be of the junk.
  _, _, uncut = take(step_of(), meta, wide)
  for name in ('meta_gradient_norm', 'supervised_gradient_norm'):
    assert not np.isclose(uncut[name], plain[2][name], rtol=1e-3)


def test_ratings_are_never_stored_with_margins():
  reward, *rest = world()
  wide = (*rest[:-1], with_margins(rest[-1], 2, np.nan))
  both = {'ratings': True, 'pairs': True}
  meta = meta_of(**both).init(reward)
  _, new, metrics = step_of(**both, margin=2)(KEY, meta, reward, *wide)
  _, want, plain = step_of(**both)(KEY, meta, reward, *rest)
  chex.assert_trees_all_close(new.params, want.params, rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(metrics['meta_loss'], plain['meta_loss'], rtol=1e-5)


def test_each_kind_guides_by_as_many_labels_as_its_own_session_has():
  reward, *rest = world()
  both = {'ratings': True, 'pairs': True, 'measure_supervised': False}
  for own, batch, want in ((None, 0, 20), (4, 0, 14), (25, 0, 28), (4, 6, 12)):
    kwargs = both | {'session_ratings': own, 'outer_batch_size': batch}
    meta = meta_of(**kwargs)
    _, _, metrics = step_of(**kwargs)(KEY, meta.init(reward), reward, *rest)
    assert int(metrics['meta_labels']) == want
  # The last four: what was rated before has no part in it.
  ratings = rest[-2]
  recent = [i for i in range(20) if i not in (2, 19)][-4:]
  older = jnp.asarray([i for i in range(20) if i not in recent])
  changed = ratings.replace(rating=ratings.rating.at[older].set(0))
  kwargs = both | {'session_ratings': 4}
  step, meta = step_of(**kwargs), meta_of(**kwargs).init(reward)
  one, other = (
    step(KEY, meta, reward, *rest[:-2], r, rest[-1])[1] for r in (ratings, changed)
  )
  assert equal(one, other)


def test_autodiff_takes_the_same_step_on_both_kinds_of_label():
  reward, *rest = world()
  results = []
  for closed in (True, False):
    kwargs = {'optimiser': 'sgd', 'learning_rate': 100.0, 'outer_batch': 'sample'}
    step = step_of(True, True, closed_form=closed, measure_supervised=False, **kwargs)
    meta = meta_of(True, True, **kwargs).init(reward)
    results.append(step(KEY, meta, reward, *rest))
  (_, a, m), (_, b, n) = results
  for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5)
  assert not equal(a.params, reward.params)
  np.testing.assert_allclose(m['meta_loss'], n['meta_loss'], rtol=1e-5)
  assert int(m['meta_labels']) == 20


def test_ratings_alone_move_the_reward_against_the_outer_gradient():
  reward, critic, obs, action, continuation, ratings, _ = world()
  rows = np.array([i for i in range(18, -1, -1) if i != 2][:10])
  starts = ratings.clip.obs[rows, 0], ratings.clip.action[rows, 0]
  everyone = jnp.ones(10, bool)

  @jax.jit
  def outer(params):
    """The loss of critics that took a step on what such a reward pays."""
    paid = MODEL.r_hat(reward.replace(params=params), obs, action)

    def error(critic):
      errors = q_values(critic, obs, action) - (paid + continuation)
      return jnp.sum(jnp.mean(jnp.square(errors), axis=-1))

    stepped = jax.tree.map(lambda p, g: p - 0.05 * g, critic, jax.grad(error)(critic))
    return 0.1 * sum(
      rating_loss(q, ratings.rating[rows], everyone, jnp.ones(3), num_classes=3).loss
      for q in q_values(stepped, *starts)
    )

  loss, gradient = jax.value_and_grad(outer)(reward.params)

  def moved(**kwargs):
    kwargs = {'ratings': True, 'pairs': False, **kwargs}
    step, meta = step_of(**kwargs), meta_of(**kwargs).init(reward)
    given = critic, obs, action, continuation, ratings, None
    _, new, metrics = step(KEY, meta, reward, *given)
    np.testing.assert_allclose(metrics['meta_loss'], loss, rtol=1e-5)
    assert int(metrics['meta_labels']) == 10
    return new, jax.tree.map(jnp.subtract, new.params, reward.params)

  new, step = moved(optimiser='sgd', learning_rate=3.0)
  chex.assert_trees_all_close(
    step, jax.tree.map(lambda g: -3.0 * g, gradient), rtol=1e-3, atol=1e-5
  )
  assert float(optax.tree.norm(step)) > 1e-2
  assert float(outer(new.params)) < float(loss) - 1e-5
  # Adam's first step has the direction of each entry's gradient.
  new, step = moved(optimiser='own_adam', learning_rate=1e-3)
  assert float(optax.tree.vdot(step, gradient)) < 0
  assert float(outer(new.params)) < float(loss) - 1e-5


def first_member(members):
  return members[0]


def test_broken_member_is_contained_and_counted():
  reward, *rest = world()
  reward = with_momentum(reward)
  kernel = reward.params[0].kernel.at[2, 0, 0].set(jnp.nan)
  params = (reward.params[0]._replace(kernel=kernel), *reward.params[1:])
  broken = reward.replace(params=params)
  shared = {'optimiser': 'shared_adam'}
  step, meta = step_of(**shared), meta_of(**shared).init(reward)
  _, new, metrics = take(step, meta, (broken, *rest))
  assert int(metrics['meta_non_finite']) == 3  # All are paid out together.
  np.testing.assert_array_equal(new.num_updates, 0)
  _, new, metrics = take(step, meta, (broken, *rest), combine=first_member)
  assert int(metrics['meta_non_finite']) == 1
  np.testing.assert_array_equal(new.num_updates, [1, 1, 0])
  np.testing.assert_array_equal(new.opt_state[0].count, [2, 2, 1])


def test_without_labels_nothing_changes():
  reward, *rest = world(skip=range(20))
  reward = with_momentum(reward)
  _, new, metrics = take(step_of(), meta_of().init(reward), (reward, *rest))
  assert equal(new, reward)
  assert int(metrics['meta_labels']) == 0
  assert float(metrics['meta_loss']) == 0


def test_seeds_are_an_axis():
  worlds = [world(seed) for seed in (0, 1)]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *worlds)
  meta = meta_of()

  @jax.jit
  @jax.vmap
  def both(world):
    return take(meta.step, meta.init(world[0]), world)

  _, new, metrics = both(stacked)
  for i, one in enumerate(worlds):
    _, alone, alone_metrics = take(step_of(), meta.init(one[0]), one)
    for name, value in alone_metrics.items():
      np.testing.assert_allclose(metrics[name][i], value, rtol=1e-4, err_msg=name)
    np.testing.assert_array_equal(new.num_updates[i], alone.num_updates)


@pytest.mark.parametrize(
  ('interval', 'last_session', 'count'),
  [
    (1000, 190_000, 179),  # walker_walk
    (5000, 190_000, 35),  # cheetah_run
    (3000, 280_000, 90),  # quadruped_walk
    (5000, 55_000, 8),  # button-press
    (10_000, 995_000, 98),  # sweep-into
  ],
)
def test_when(interval, last_session, count):
  options = MetaOptions(interval=interval)
  due = [
    t for t in range(0, 1_000_001, 500) if is_due(options, t, 10_000, last_session)
  ]
  assert len(due) == count
  assert due[0] > 10_000
  assert due[-1] < last_session
  later = 30 * interval * 10
  on = MetaOptions(interval=interval, stop_with_budget=False)
  assert is_due(on, later, 10_000, last_session)
  # A run that ends before its budget never stops.
  assert is_due(options, later, 10_000, None)


def test_refusal():
  with pytest.raises(ValueError, match='needs labels'):
    meta_of(pairs=False)
  with pytest.raises(ValueError, match='leaves no label'):
    make_meta_step(
      MetaOptions(), REWARD, MODEL, q_values, 0.1, session_labels=0, pairs=PAIRS
    )
  reward, *rest = world()
  with pytest.raises(ValueError, match='a store that is not used must be None'):
    meta_of().step(KEY, meta_of().init(reward), reward, *rest)
