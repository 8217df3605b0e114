from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.core.padding import Padded
from rlfb_jax.feedback.scripted import myopic_return
from rlfb_jax.feedback.scripted_rater import RaterOptions, bin_return, rate

KEY = jax.random.key(0)


def as_rewards(returns, steps=50):
  return jnp.asarray(returns, jnp.float32)[:, None] * jnp.full(steps, 1 / steps)


@pytest.mark.parametrize(
  ('num_classes', 'returns', 'ratings'),
  [
    (4, [0, 12.5, 25, 37.5, 50], [0, 1, 2, 3, 3]),
    (5, [10], [1]),
    (2, [24.99, 25], [0, 1]),
    (3, [16.66, 16.67, 33.33, 33.34], [0, 1, 1, 2]),
    (6, [8.33, 8.34, 25, 41.66, 41.67], [0, 1, 3, 4, 5]),
    (4, [-3, 51], [0, 3]),
  ],
)
def test_published_thresholds(num_classes, returns, ratings):
  got = jax.jit(lambda g: bin_return(g, 50.0, num_classes))(jnp.array(returns, float))
  np.testing.assert_array_equal(got, ratings)


@pytest.mark.parametrize('max_return', [50, 25, 20, 30])
def test_integer_returns_have_no_gaps_for_any_n(max_return):
  returns = np.arange(51)
  for n in range(2, 12):
    want = [min(n - 1, int(Fraction(n * int(g), max_return))) for g in returns]
    binned = jax.jit(lambda g, n=n: bin_return(g, float(max_return), n))
    np.testing.assert_array_equal(binned(jnp.asarray(returns, jnp.float32)), want)


def test_sparse_rewards_rate_by_count():
  hits = jnp.array([[i < g for i in range(50)] for g in (0, 24, 25, 50)], jnp.float32)
  out = rate(KEY, hits, RaterOptions(num_classes=2), 50.0)
  np.testing.assert_array_equal(out.rating, [0, 0, 1, 1])
  np.testing.assert_array_equal(out.segment_return, [0, 24, 25, 50])
  assert not np.any(np.asarray(out.skipped))


def test_option_overrides_the_tasks_scale():
  options = RaterOptions(num_classes=4, max_return=20.0)
  assert rate(KEY, as_rewards([12.0]), options, 50.0).rating[0] == 2


@pytest.mark.parametrize('max_return', [50.0, 25.0, 20.0, 0.3])
def test_a_scale_among_others_of_a_program_rates_alike(max_return):
  # On thresholds, near them, and beyond the scale.
  returns = np.concatenate([np.arange(13) / 12, np.linspace(-0.1, 1.2, 500)])
  rewards = as_rewards(max_return * returns, steps=1)
  for n in (2, 3, 4, 6):

    def rated(scale, n=n):
      options = RaterOptions(num_classes=n, max_return=scale)
      return rate(KEY, rewards, options, 1.0).rating

    want = jax.jit(lambda rated=rated: rated(max_return))()
    assert set(np.asarray(want)) == set(range(n))
    np.testing.assert_array_equal(jax.jit(rated)(jnp.float32(max_return)), want)


def test_perfect_rater_ignores_the_key():
  rewards = jax.random.uniform(KEY, (64, 50))
  a, b = (rate(jax.random.key(i), rewards, RaterOptions(), 50.0) for i in (1, 2))
  np.testing.assert_array_equal(a.rating, b.rating)


@pytest.mark.parametrize('kind', ['neighbour', 'uniform'])
def test_mistakes_have_their_rate_and_kind(kind):
  n, size = 4, 20_000
  rewards = as_rewards(np.tile([5.0, 20.0, 30.0, 45.0], size // 4), steps=2)
  options = RaterOptions(num_classes=n, mistake=0.3, mistake_kind=kind)
  rating = np.asarray(rate(KEY, rewards, options, 50.0).rating)
  truth = np.tile(np.arange(n), size // 4)
  wrong = rating != truth
  assert abs(wrong.mean() - 0.3) < 4 * np.sqrt(0.21 / size)
  assert rating.min() == 0
  assert rating.max() == n - 1
  table = np.zeros((n, n))
  np.add.at(table, (truth[wrong], rating[wrong]), 1)
  table /= table.sum(axis=1, keepdims=True)
  want = {
    'neighbour': [[0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5], [0, 0, 1, 0]],
    'uniform': (np.ones((n, n)) - np.eye(n)) / 3,
  }[kind]
  np.testing.assert_allclose(table, want, atol=4 * np.sqrt(0.25 / 1400))


@pytest.mark.parametrize('kind', ['neighbour', 'uniform'])
@pytest.mark.parametrize('n', [2, 3, 4, 6])
def test_a_number_of_classes_among_others_of_a_program_rates_alike(n, kind):
  rewards = 60 * jax.random.uniform(KEY, (2000, 1))
  options = RaterOptions(num_classes=n, mistake=0.3, mistake_kind=kind)
  want = jax.jit(lambda: rate(KEY, rewards, options, 50.0))()

  @jax.jit
  def padded(n):
    options = RaterOptions(num_classes=Padded(n, 6), mistake=0.3, mistake_kind=kind)
    return rate(KEY, rewards, options, 50.0)

  np.testing.assert_array_equal(padded(jnp.int32(n)).rating, want.rating)


def test_return_noise_blurs_by_a_fraction_of_the_scale():
  rewards = as_rewards(np.full(20_000, 25.0 - 5.0))
  options = RaterOptions(num_classes=2, return_noise=0.1)
  rated = rate(KEY, rewards, options, 50.0)
  # P(20 + 5 z >= 25) = P(z >= 1) = 0.1587.
  assert abs(float(rated.rating.mean()) - 0.1587) < 4 * np.sqrt(0.1335 / 20_000)
  np.testing.assert_allclose(rated.segment_return, 20.0, rtol=1e-5)


def test_skips_what_is_at_most_the_threshold():
  rewards = jnp.zeros((3, 4)).at[:, 0].set(jnp.array([1.0, 2.0, 3.0]))
  out = rate(KEY, rewards, RaterOptions(skip=0.1), 50.0, mean_segment_return=20.0)
  np.testing.assert_array_equal(out.skipped, [True, True, False])
  # Nothing is skipped where the threshold is not positive.
  for mean in (0.0, -20.0):
    out = rate(KEY, 0 * rewards, RaterOptions(skip=0.1), 50.0, mean_segment_return=mean)
    assert not np.any(np.asarray(out.skipped))


def test_myopia_weighs_late_steps_and_keeps_the_scale():
  rewards = np.random.default_rng(0).uniform(size=(5, 50))
  weights = 0.9 ** np.arange(49, -1, -1)
  want = rewards @ (weights * 50 / weights.sum())
  got = myopic_return(jnp.asarray(rewards, jnp.float32), 0.9, normalise=True)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  same = myopic_return(jnp.full((1, 50), 0.5), 0.9, normalise=True)
  np.testing.assert_allclose(same, 25.0, rtol=1e-6)
  late = jnp.zeros((2, 50)).at[0, 0].set(1.0).at[1, -1].set(1.0)
  early, recent = myopic_return(late, 0.9, normalise=True)
  np.testing.assert_allclose(early / recent, 0.9**49, rtol=1e-4)


def test_options_are_checked():
  with pytest.raises(ValueError, match=r'num_classes=1 must be at least 2'):
    RaterOptions(num_classes=1)
  with pytest.raises(ValueError, match=r'mistake=1\.5'):
    RaterOptions(mistake=1.5)
