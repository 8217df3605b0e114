"""Statistics of few runs, against SciPy and against complete enumeration."""

import itertools

import numpy as np
import pytest
from scipy import stats

from rlfb_jax.reports import statistics


@pytest.mark.parametrize('size', [1, 2, 3, 4, 5, 7, 10, 23])
def test_the_interquartile_mean_is_that_of_scipy(size):
  values = np.random.default_rng(size).normal(size=(3, size))
  expected = stats.trim_mean(values, 0.25, axis=-1)
  np.testing.assert_allclose(statistics.interquartile_mean(values), expected)


def test_the_interval_is_that_of_scipys_bootstrap():
  scores = np.random.default_rng(0).gamma(2.0, size=12)
  found = statistics.aggregate([scores], resamples=20_000)
  result = stats.bootstrap(
    (scores,),
    lambda x, axis: stats.trim_mean(x, 0.25, axis=axis),
    n_resamples=20_000,
    method='percentile',
    rng=np.random.default_rng(1),
  ).confidence_interval
  width = result.high - result.low
  np.testing.assert_allclose(found[1:], (result.low, result.high), atol=0.04 * width)
  np.testing.assert_allclose(found.value, stats.trim_mean(scores, 0.25))


def test_runs_are_drawn_within_their_own_task():
  scores = [np.array([0.0, 1.0]), np.array([10.0, 20.0, 40.0])]
  every = [
    np.mean([*a, *b])
    for a in itertools.product(scores[0], repeat=2)
    for b in itertools.product(scores[1], repeat=3)
  ]
  drawn = statistics.resample(scores, 40_000, seed=0)
  assert set(np.unique(drawn[:, :2])) == {0.0, 1.0}
  assert set(np.unique(drawn[:, 2:])) == {10.0, 20.0, 40.0}
  values, counts = np.unique(np.round(every, 9), return_counts=True)
  seen = np.round(drawn.mean(axis=1), 9)
  shares = np.array([(seen == v).mean() for v in values])
  np.testing.assert_allclose(shares, counts / len(every), atol=0.01)
  found = statistics.aggregate(scores, statistics.mean, confidence=0.8)
  np.testing.assert_allclose(
    found[1:], np.percentile(every, [10, 90]), atol=0.08 * np.ptp(every)
  )


def test_profiles_are_shares_of_runs_and_weigh_tasks_alike():
  scores = [np.array([0.2, 0.4]), np.array([0.1, 0.6, 0.9, 1.1])]
  thresholds = np.array([0.0, 0.1, 0.5, 2.0])
  found = statistics.performance_profile(scores, thresholds, resamples=4000)
  np.testing.assert_allclose(found.value, [1.0, (1 + 0.75) / 2, 0.375, 0.0])
  # Above 0.5: none of the first task, of the second a binomial share.
  exact = stats.binom.ppf([0.025, 0.975], 4, 0.75) / 4 / 2
  np.testing.assert_allclose([found.low[2], found.high[2]], exact)
  assert found.low[0] == found.high[0] == 1.0


@pytest.mark.parametrize('levels', [2, 1000])
def test_improvement_is_the_mann_whitney_statistic(levels):
  rng = np.random.default_rng(levels)
  first, second = (
    [rng.integers(0, levels, n).astype(float) for n in sizes]
    for sizes in ((5, 4), (6, 3))
  )
  expected = np.mean(
    [
      stats.mannwhitneyu(x, y).statistic / (len(x) * len(y))
      for x, y in zip(first, second, strict=True)
    ]
  )
  found = statistics.probability_of_improvement(first, second)
  np.testing.assert_allclose(found.value, expected)
  assert 0 <= found.low <= found.value <= found.high <= 1
  mirrored = statistics.probability_of_improvement(second, first)
  np.testing.assert_allclose(mirrored.value, 1 - expected)


def test_the_interval_of_improvement_is_that_of_all_resamples():
  x, y = np.array([1.0, 3.0, 4.0]), np.array([2.0, 3.0])
  every = [
    np.mean([(a > b) + 0.5 * (a == b) for a in xs for b in ys])
    for xs in itertools.product(x, repeat=3)
    for ys in itertools.product(y, repeat=2)
  ]
  found = statistics.probability_of_improvement(
    [x], [y], resamples=40_000, confidence=0.7
  )
  exact = np.percentile(every, [15, 85])
  np.testing.assert_allclose(found[1:], exact, atol=0.06)


def test_one_run_says_nothing_about_spread():
  one = [np.array([3.0])]
  assert statistics.aggregate(one).value == 3.0
  assert np.isnan(statistics.aggregate(one)[1:]).all()
  assert np.isnan(statistics.probability_of_improvement(one, one).low)
  profile = statistics.performance_profile(one, np.array([1.0]))
  assert np.isnan(profile.low).all()


def test_the_same_seed_says_the_same_twice():
  scores = [np.arange(5.0), np.arange(7.0)]
  assert statistics.aggregate(scores) == statistics.aggregate(scores)
  assert statistics.aggregate(scores) != statistics.aggregate(scores, seed=1)


def test_different_tasks_are_refused():
  with pytest.raises(ValueError, match='same tasks'):
    statistics.probability_of_improvement([np.ones(2)], [np.ones(2)] * 2)
