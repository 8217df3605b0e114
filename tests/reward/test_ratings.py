import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rating_reference as reference

from rlfb_jax.core.padding import Padded, capacity
from rlfb_jax.reward import ratings as R

CLASSES = [2, 3, 4, 5, 6]
jit_loss = jax.jit(
  R.rating_loss, static_argnames=('num_classes', 'sharpness', 'boundaries', 'loss')
)
jit_boundaries = jax.jit(R.class_boundaries, static_argnames=('num_classes', 'kind'))


def batch(n, size=24, padding=8, seed=0, labels=None):
  """Returns and labels, padded with rubbish, and the real ones in float64."""
  rng = np.random.default_rng(seed + n)
  returns = rng.normal(size=size).astype(np.float32)
  labels = rng.integers(0, n, size) if labels is None else np.asarray(labels)
  padded = np.concatenate([returns, np.full(padding, np.nan, np.float32)])
  marks = np.concatenate([labels, np.zeros(padding, int)]).astype(np.int32)
  order = rng.permutation(size + padding)
  mask = (np.arange(size + padding) < size)[order]
  real = returns.astype(np.float64)[order[mask]], labels[order[mask]]
  return jnp.asarray(padded[order]), jnp.asarray(marks[order]), jnp.asarray(mask), real


@pytest.mark.parametrize('kind', ['midpoint', 'order_stat'])
@pytest.mark.parametrize('n', [2, 4, 6])
def test_loss_and_gradient_match_float64(n, kind):
  returns, labels, mask, (real, real_labels) = batch(n)
  for loss in ('cross_entropy', 'mae'):
    mae = loss == 'mae'
    weights = jnp.arange(1.0, n + 1)

    def f(r, loss=loss, weights=weights):
      out = jit_loss(
        r, labels, mask, weights, num_classes=n, boundaries=kind, loss=loss
      )
      return out.loss

    value, grad = jax.value_and_grad(f)(returns)
    kwargs = {'kind': kind, 'mae': mae, 'weights': weights}
    want = reference.loss(real, real_labels, n, **kwargs)
    np.testing.assert_allclose(value, want, rtol=2e-5)
    want_grad = reference.loss_gradient(real, real_labels, n, **kwargs)
    got = np.asarray(grad)
    assert np.all(got[~np.asarray(mask)] == 0)  # Padding: no value, no NaN.
    np.testing.assert_allclose(got[np.asarray(mask)], want_grad, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize('n', CLASSES)
def test_linear_and_quadratic_logits_are_one_model(n):
  rng = np.random.default_rng(n)
  tau = np.concatenate([[0], np.sort(rng.uniform(size=n - 1)), [1]])
  r = np.linspace(0, 1, 101)
  want = reference.softmax(reference.quadratic_logits(r, tau, 30.0))
  with jax.enable_x64(True):
    logits = R.class_logits(jnp.asarray(r), jnp.asarray(tau), 30.0)
    np.testing.assert_allclose(jax.nn.softmax(logits), want, atol=1e-12)
  logits = R.class_logits(
    jnp.asarray(r, jnp.float32), jnp.asarray(tau, jnp.float32), 30.0
  )
  np.testing.assert_allclose(jax.nn.softmax(logits), want, atol=1e-5)


def test_adjacent_category_odds():
  tau = jnp.array([0.0, 0.2, 0.5, 0.9, 1.0])
  r = jnp.linspace(0, 1, 11)
  logits = R.class_logits(r, tau, 30.0)
  for i in range(3):
    odds = 30.0 * (tau[i + 2] - tau[i]) * (r - tau[i + 1])
    np.testing.assert_allclose(logits[:, i + 1] - logits[:, i], odds, atol=1e-4)


@pytest.mark.parametrize('n', CLASSES)
def test_most_probable_class_changes_exactly_at_the_boundaries(n):
  rng = np.random.default_rng(n)
  tau = np.concatenate([[0], np.sort(rng.uniform(size=n - 1)), [1]])
  tau = jnp.asarray(tau, jnp.float32)
  for i in range(1, n):
    around = jnp.array([tau[i] - 1e-4, tau[i] + 1e-4])
    best = jnp.argmax(R.class_logits(around, tau, 30.0), axis=-1)
    np.testing.assert_array_equal(best, [i - 1, i])


def test_top_class_is_not_punished_for_being_too_good():
  p = jax.nn.softmax(
    R.class_logits(jnp.linspace(0, 1, 50), jnp.array([0, 0.3, 0.6, 1.0]), 30.0)
  )
  assert np.all(np.diff(np.asarray(p[:, -1])) > 0)


@pytest.mark.parametrize('kind', ['midpoint', 'order_stat'])
@pytest.mark.parametrize(
  ('labels', 'empty'),
  [([1] * 5 + [2] * 5, 0), ([0] * 5 + [2] * 5, 1), ([0] * 5 + [1] * 5, 2)],
)
def test_empty_classes(kind, labels, empty):
  returns, marks, mask, (real, real_labels) = batch(3, size=10, labels=labels)
  normalised = R.normalise_returns(returns, mask)
  tau = np.asarray(jit_boundaries(normalised, marks, mask, num_classes=3, kind=kind))
  want = reference.boundaries(reference.normalise(real), real_labels, 3, kind)
  np.testing.assert_allclose(tau, want, atol=1e-6)
  assert np.all(np.diff(tau) >= 0)
  np.testing.assert_allclose(tau[empty], tau[empty + 1], atol=1e-6)
  # An empty lowest class starts and ends at 0; the public code puts its end at 1.
  assert tau[1] == 0 if empty == 0 else tau[1] > 0
  assert tau[2] == 1 if empty == 2 else tau[2] < 1
  out = jit_loss(returns, marks, mask, jnp.ones(3), num_classes=3, boundaries=kind)
  assert bool(out.usable)
  assert np.isfinite(out.loss)


@pytest.mark.parametrize('kind', ['midpoint', 'order_stat'])
def test_as_many_predictions_as_labels_in_each_class(kind):
  returns, labels, mask, _ = batch(4, size=50, padding=14)
  normalised = R.normalise_returns(returns, mask)
  tau = np.asarray(jit_boundaries(normalised, labels, mask, num_classes=4, kind=kind))
  r = np.asarray(normalised)[np.asarray(mask)]
  # An order statistic is the last inside the lower class.
  got = [np.sum((r > tau[i]) & (r <= tau[i + 1])) for i in range(4)]
  got[0] += np.sum(r == 0)
  np.testing.assert_array_equal(got, R.class_counts(labels, mask, 4))


def test_one_class_or_equal_returns_teach_nothing():
  for returns, labels in (
    (jnp.arange(6.0), jnp.zeros(6, jnp.int32)),
    (jnp.arange(6.0), jnp.full(6, 2, jnp.int32)),
    (jnp.full(6, 3.0), jnp.arange(6) % 3),
    (3.0 + 1e-7 * jnp.arange(6.0), jnp.arange(6) % 3),
  ):
    args = (labels, jnp.ones(6, bool), jnp.ones(3))
    out = jit_loss(returns, *args, num_classes=3)
    assert not bool(out.usable)
    assert float(out.loss) == 0
    grad = jax.grad(lambda r, a=args: jit_loss(r, *a, num_classes=3).loss)(returns)
    np.testing.assert_array_equal(grad, 0)
  # Only padding.
  out = jit_loss(
    jnp.arange(6.0), jnp.arange(6) % 3, jnp.zeros(6, bool), jnp.ones(3), num_classes=3
  )
  assert not bool(out.usable)
  assert np.isfinite(out.loss)


def test_ties_at_a_boundary():
  returns = jnp.array([0.0, 1.0, 1.0, 1.0, 2.0, 2.0])
  labels = jnp.array([0, 0, 0, 1, 1, 1])
  out = jit_loss(returns, labels, jnp.ones(6, bool), jnp.ones(2), num_classes=2)
  want = reference.loss(np.asarray(returns, float), np.asarray(labels), 2)
  np.testing.assert_allclose(out.loss, want, rtol=1e-5)
  grad = jax.grad(
    lambda r: jit_loss(r, labels, jnp.ones(6, bool), jnp.ones(2), num_classes=2).loss
  )(returns)
  assert np.all(np.isfinite(grad))
  assert np.any(np.asarray(grad) != 0)


@pytest.mark.parametrize('n', [2, 4])
def test_affine_maps_of_the_returns_change_nothing(n):
  returns, labels, mask, _ = batch(n, padding=0)
  args = (labels, mask, jnp.ones(n))
  base = jit_loss(returns, *args, num_classes=n)
  moved = jit_loss(7.0 * returns - 3.0, *args, num_classes=n)
  np.testing.assert_allclose(moved.loss, base.loss, rtol=1e-4)


@pytest.mark.parametrize(
  ('n', 'floor', 'inner'),
  [
    (2, 0.055, None),
    (3, 0.164, 0.93),
    (4, 0.314, 0.77),
    (5, 0.471, 0.62),
    (6, 0.619, 0.52),
  ],
)
def test_sharpness_falls_with_n(n, floor, inner):
  """Best reachable loss with equal classes and uniform returns, k = 30."""
  r = (jnp.arange(20_000) + 0.5) / 20_000
  tau = jnp.arange(n + 1) / n
  label = jnp.floor(r * n).astype(int)
  log_p = jax.nn.log_softmax(R.class_logits(r, tau, 30.0))
  got = -jnp.mean(jnp.take_along_axis(log_p, label[:, None], axis=1))
  np.testing.assert_allclose(got, floor, atol=6e-4)
  if inner is not None:
    p = jax.nn.softmax(R.class_logits(jnp.array([1.5 / n]), tau, 30.0))
    np.testing.assert_allclose(p[0, 1], inner, atol=6e-3)
  # With n2 an inner class is as sharp as k = 30 makes it where n = 2 ... : the odds
  # at the distance of half a class no longer depend on n.
  k = R.class_sharpness(30.0, 'n2', n)
  logits = R.class_logits(jnp.array([0.5 / n]), tau, k)
  np.testing.assert_allclose(logits[0, 0] - logits[0, 1], 7.5, rtol=1e-5)
  assert R.class_sharpness(30.0, 'const', n) == 30.0


def test_balancing_weights():
  got = R.balancing_weights(jnp.array([10, 30, 60]), 3)
  np.testing.assert_allclose(got, np.array([0.9, 0.7, 0.4]) / 0.4, rtol=1e-6)
  np.testing.assert_array_equal(R.balancing_weights(jnp.array([10, 0, 60]), 3), 1.0)
  np.testing.assert_array_equal(R.balancing_weights(jnp.zeros(3, int), 3), 1.0)


# Labels of which n = 4 has a class less, at the top, in the middle, first, or two.
MISSING = [(), (3,), (1,), (0,), (2, 3), (0, 3)]


@pytest.mark.parametrize('kind', ['midpoint', 'order_stat'])
@pytest.mark.parametrize('missing', MISSING, ids=str)
def test_boundaries_beyond_the_classes_of_a_run_are_one(missing, kind):
  left = [i for i in range(4) if i not in missing]
  returns, labels, mask, _ = batch(4, labels=np.resize(left, 24))
  normalised = R.normalise_returns(returns, mask)
  want = jit_boundaries(normalised, labels, mask, num_classes=4, kind=kind)
  got = jit_boundaries(normalised, labels, mask, num_classes=7, kind=kind)
  np.testing.assert_array_equal(got[:5], want)
  np.testing.assert_array_equal(got[5:], 1.0)


@pytest.mark.parametrize(
  ('kind', 'loss', 'balanced'),
  [
    ('midpoint', 'cross_entropy', False),
    ('midpoint', 'mae', True),
    ('order_stat', 'cross_entropy', True),
  ],
)
@pytest.mark.parametrize('most', [4, 6, 9])
def test_classes_that_a_run_does_not_have_change_no_loss(most, kind, loss, balanced):
  options = {'boundaries': kind, 'loss': loss}

  def value(returns, labels, mask, n):
    counts = R.class_counts(labels, mask, capacity(n))
    weights = R.balancing_weights(counts, n) if balanced else jnp.ones(capacity(n))
    sharpness = R.class_sharpness(30.0, 'n2', n)
    out = R.rating_loss(
      returns, labels, mask, weights, num_classes=n, sharpness=sharpness, **options
    )
    return out.loss, out

  def slope(n):
    return jax.jit(jax.value_and_grad(functools.partial(value, n=n), has_aux=True))

  @jax.jit
  def padded(n, *args):
    f = functools.partial(value, n=Padded(n, most))
    return jax.value_and_grad(f, has_aux=True)(*args)

  for n in range(2, min(most, 6) + 1):
    plain = slope(n)
    for missing in ((), (n - 1,), (1,), (0,)):
      left = [i for i in range(n) if i not in missing]
      args = batch(n, labels=np.resize(left, 24))[:3]
      (_, want), want_grad = plain(*args)
      (_, got), got_grad = padded(jnp.int32(n), *args)
      np.testing.assert_allclose(got.loss, want.loss, rtol=1e-6, atol=1e-7)
      assert (got.usable, got.correct) == (want.usable, want.correct)
      assert np.all(np.isfinite(got_grad))
      scale = np.abs(want_grad).max()
      np.testing.assert_allclose(got_grad, want_grad, rtol=0, atol=1e-5 * scale)


def test_an_empty_top_class_keeps_its_probability_and_classes_beyond_have_none():
  returns, labels, mask, _ = batch(3, labels=np.resize([0, 1], 24))
  args = (labels, mask, jnp.ones(6))
  want = jit_loss(returns, labels, mask, jnp.ones(3), num_classes=3).loss
  f = jax.jit(lambda n: R.rating_loss(returns, *args, num_classes=Padded(n, 6)).loss)
  np.testing.assert_allclose(f(jnp.int32(3)), want, rtol=1e-6)
  # Without the mask they would share it.
  assert jit_loss(returns, *args, num_classes=6).loss > want + 1e-3


def test_correct_counts_real_samples():
  returns, labels, mask, (real, real_labels) = batch(4)
  out = jit_loss(returns, labels, mask, jnp.ones(4), num_classes=4)
  tau = reference.boundaries(reference.normalise(real), real_labels, 4, 'midpoint')
  best = reference.quadratic_logits(reference.normalise(real), tau, 30.0).argmax(-1)
  assert float(out.correct) == np.sum(best == real_labels)


def test_gradient_closed_form():
  rng = np.random.default_rng(0)
  tau = jnp.array([0.0, 0.25, 0.4, 0.8, 1.0])
  r = jnp.asarray(rng.uniform(size=9), jnp.float32)
  y = jnp.asarray(rng.integers(0, 4, 9))

  def each(r):
    log_p = jax.nn.log_softmax(R.class_logits(r, tau, 30.0))
    return -jnp.sum(jnp.take_along_axis(log_p, y[:, None], axis=1))

  p = jax.nn.softmax(R.class_logits(r, tau, 30.0))
  pair = tau[:-1] + tau[1:]
  want = -30.0 * (pair[y] - p @ pair)
  np.testing.assert_allclose(jax.grad(each)(r), want, rtol=1e-4, atol=1e-4)


def test_masks_survive_vmap():
  stacked = [batch(3, seed=s)[:3] for s in range(4)]
  arrays = [jnp.stack(x) for x in zip(*stacked, strict=True)]
  f = functools.partial(R.rating_loss, weights=jnp.ones(3), num_classes=3)
  grads = jax.jit(jax.vmap(jax.grad(lambda r, y, m: f(r, y, m).loss)))(*arrays)
  for i, (r, y, m) in enumerate(stacked):
    alone = jax.grad(
      lambda r, y=y, m=m: jit_loss(r, y, m, jnp.ones(3), num_classes=3).loss
    )(r)
    np.testing.assert_allclose(grads[i], alone, atol=1e-5)
  assert np.all(np.isfinite(grads))


def test_refusal():
  with pytest.raises(ValueError, match='boundaries=median is not one of'):
    R.class_boundaries(jnp.zeros(3), jnp.zeros(3, int), jnp.ones(3, bool), 2, 'median')
