"""The outer gradient: closed form, automatic differentiation, finite differences."""

import functools
import itertools

import jax
import jax.numpy as jnp
import meta_reference as reference
import numpy as np
import pytest

from rlfb_jax.core.networks import Layer, apply_mlp
from rlfb_jax.feedback.clips import Segments
from rlfb_jax.reward import meta
from rlfb_jax.reward.model import aggregate, make_reward_model
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.preferences import PreferenceLossOptions

DS, DA, B, M, REAL, H = 3, 2, 8, 6, 5, 3
REWARD = RewardOptions(hidden_size=4, hidden_layers=2, whiten=False)
JUDGE = meta.Judge(REWARD, 3, PreferenceLossOptions())
STEP = {'learning_rate': 0.3, 'weight': 0.1}


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def q_values(params, obs, action):
  x = jnp.concatenate([obs, action], axis=-1)
  return jax.vmap(lambda p: apply_mlp(p, x, jnp.tanh)[..., 0])(params)


def network(rng, sizes, lead):
  return tuple(
    Layer(
      jnp.asarray(rng.normal(size=(*lead, n, m)) / n**0.5),
      jnp.asarray(rng.normal(size=(*lead, m)) / n**0.5),
    )
    for n, m in itertools.pairwise(sizes)
  )


def problem(seed=0):
  """Critics, replay batch and labels; one pair is padding that holds no number."""
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape))

  def segments():
    obs, action = normal(M, H, DS), normal(M, H, DA)
    return Segments(obs.at[REAL:].set(7.0), action)

  label = jnp.asarray([0.0, 1.0, 0.5, 1.0, 0.0, 1.0])
  mask = jnp.arange(M) < REAL
  pairs = meta.PairBatch(segments(), segments(), label, mask)
  rated = meta.RatingBatch(
    segments(), jnp.asarray([0, 1, 2, 1, 0, 2]), mask, jnp.ones(3)
  )
  critic = network(rng, [DS + DA, 6, 6, 1], (2,))
  ensemble = network(rng, [DS + DA, 4, 4, 1], (3,))
  return critic, ensemble, normal(B, DS), normal(B, DA), normal(B), pairs, rated


def ensemble_rewards(how, weight, obs, action):
  model = make_reward_model(REWARD, DS, DA)
  state = model.init(jax.random.key(0))

  def rewards(params):
    members = model.r_hat_members(state.replace(params=params), obs, action)
    return aggregate(members, how, weight)

  return rewards


def both(rewards, params, batch, parts, **kwargs):
  critic, _, obs, action, continuation, _, _ = parts
  rest = critic, obs, action, rewards, params, continuation, JUDGE, batch
  return [
    f(q_values, *rest, **{**STEP, **kwargs})
    for f in (meta.outer_gradient, meta.outer_gradient_autodiff)
  ]


@functools.cache
def both_gradients(how):
  """By both routes, of the ensemble's parameters."""

  @jax.jit
  def compute(parts, weight, batch):
    rewards = ensemble_rewards(how, weight, parts[2], parts[3])
    return both(rewards, parts[1], batch, parts)

  return compute


@jax.jit
def by_reward(parts, r, pairs, learning_rate=STEP['learning_rate']):
  """By both routes, of the rewards themselves."""
  batch = meta.OuterBatch(pairs, None)
  return both(lambda p: p, r, batch, parts, learning_rate=learning_rate)


def close(a, b, rtol=1e-9):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-14)


def test_derivative_by_each_reward_matches_float64_differences():
  parts = problem()
  critic, _, obs, action, continuation, pairs, _ = parts
  r = jnp.linspace(-1.0, 1.0, B)
  closed, autodiff = by_reward(parts, r, pairs)
  close(closed, autodiff)
  layers = [
    [tuple(np.asarray(x[c]) for x in layer) for layer in critic] for c in range(2)
  ]
  starts = [
    np.concatenate([s.obs[:REAL, 0], s.action[:REAL, 0]], axis=1) for s in pairs[:2]
  ]

  def loss(r):
    return reference.outer_loss(
      layers,
      np.concatenate([obs, action], axis=1),
      np.asarray(continuation) + r,
      *starts,
      np.asarray(pairs.label)[:REAL],
      STEP['learning_rate'],
      STEP['weight'],
    )

  r = np.asarray(r)
  np.testing.assert_allclose(closed.loss, loss(r), rtol=1e-10)
  slopes = [(loss(r + d) - loss(r - d)) / 2e-5 for d in 1e-5 * np.eye(B)]
  assert np.abs(slopes).min() > 1e-5
  np.testing.assert_allclose(closed.gradient, slopes, rtol=1e-5)


@pytest.mark.parametrize('how', ['mean', 'mean_minus_std', 'min'])
def test_ensemble_gradient_matches_autodiff_and_differences(how):
  parts = problem()
  params = parts[1]
  batch = meta.OuterBatch(parts[5], None)
  closed, autodiff = both_gradients(how)(parts, 0.7, batch)
  close(closed, autodiff)
  compute = both_gradients(how)
  rng = np.random.default_rng(1)
  for _ in range(2):
    d = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)

    def loss(h, d=d):
      moved = jax.tree.map(lambda p, x: p + h * x, params, d)
      return compute((parts[0], moved, *parts[2:]), 0.7, batch)[0].loss

    want = (loss(1e-5) - loss(-1e-5)) / 2e-5
    got = sum(
      jnp.vdot(a, b)
      for a, b in zip(jax.tree.leaves(closed.gradient), jax.tree.leaves(d), strict=True)
    )
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize('pairs', [True, False])
@pytest.mark.parametrize('ratings', [True, False])
def test_a_kind_without_a_label_has_no_part_in_the_accuracy(pairs, ratings):
  *_, compared, rated = problem()
  # Every answer is predicted: pairs by their margins, ratings by their order.
  margin = jnp.where(compared.label > 0.5, 1.0, -1.0)
  nobody = jnp.zeros(M, bool)
  batch = meta.OuterBatch(
    compared if pairs else compared._replace(mask=nobody),
    rated if ratings else rated._replace(mask=nobody),
  )
  scores = jnp.stack([jnp.zeros(M), margin], axis=1), 1.0 * rated.rating
  loss, accuracy = JUDGE(*scores, batch)
  assert float(accuracy) == float(pairs or ratings)
  assert (float(loss) > 0) == (pairs or ratings)
  wrong = jnp.stack([margin, jnp.zeros(M)], axis=1), scores[1]
  _, accuracy = JUDGE(*wrong, batch)
  assert float(accuracy) == pytest.approx(
    (0.0 * pairs + ratings) / max(1, pairs + ratings)
  )
  # Pairs that are equally good cannot be predicted either.
  equal = batch._replace(pairs=batch.pairs._replace(label=jnp.full(M, 0.5)))
  _, accuracy = JUDGE(*wrong, equal)
  assert float(accuracy) == float(ratings)


def test_ratings_guide_the_outer_step_too():
  parts = problem()
  *_, pairs, rated = parts
  compute = both_gradients('mean')
  only_rated = compute(parts, 0.0, meta.OuterBatch(None, rated))
  only_pairs = compute(parts, 0.0, meta.OuterBatch(pairs, None))
  together = compute(parts, 0.0, meta.OuterBatch(pairs, rated))
  close(*only_rated)
  close(*together)
  assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(only_rated)) > 1e-3
  summed = jax.tree.map(jnp.add, only_rated[0].gradient, only_pairs[0].gradient)
  close(together[0].gradient, summed)
  # Padding is padding.
  moved = rated._replace(
    segment=jax.tree.map(lambda x: x.at[REAL:].set(-3.0), rated[0])
  )
  close(compute(parts, 0.0, meta.OuterBatch(None, moved)), only_rated, rtol=1e-12)


def test_members_get_a_third_each():
  parts = problem()
  params = jax.tree.map(lambda x: jnp.stack([x[0]] * 3), parts[1])
  batch = meta.OuterBatch(parts[5], None)
  same = (parts[0], params, *parts[2:])
  of_mean = both_gradients('mean')(same, 0.0, batch)[0].gradient

  def first_alone(p):
    return ensemble_rewards('mean', 0.0, parts[2], parts[3])(
      jax.tree.map(lambda x: jnp.stack([x] * 3), p)
    )

  one = jax.tree.map(lambda x: x[0], params)
  whole = jax.jit(lambda p: both(first_alone, p, batch, parts)[0])(one).gradient
  for k in range(3):
    close(jax.tree.map(lambda x, k=k: 3 * x[k], of_mean), whole)


def test_step_of_size_zero_teaches_exactly_nothing():
  parts = problem()
  closed, autodiff = by_reward(parts, jnp.ones(B), parts[5], 0.0)
  np.testing.assert_array_equal(closed.gradient, 0.0)
  np.testing.assert_array_equal(autodiff.gradient, 0.0)
  assert float(closed.loss) > 0


def test_sign_flips_with_the_labels_where_predictions_are_one_half():
  parts = problem()
  *body, last = parts[0]
  parts = ((*body, jax.tree.map(jnp.zeros_like, last)), *parts[1:])
  pairs = parts[5]
  r = -parts[4]  # No error: the critics stay at zero, and so do all scores.
  flipped = pairs._replace(label=1 - pairs.label)
  a, b = (by_reward(parts, r, x)[0] for x in (pairs, flipped))
  assert np.abs(np.asarray(a.gradient)).max() > 1e-4
  close(a.gradient, -b.gradient)
  np.testing.assert_allclose(a.loss, 0.1 * 2 * np.log(2))
  equal = pairs._replace(label=jnp.full(M, 0.5))
  c = by_reward(parts, r, equal)[0]
  np.testing.assert_allclose(c.gradient, 0.0, atol=1e-16)
