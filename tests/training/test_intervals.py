"""Intervals cover what they say they cover."""

import numpy as np
import pytest
from scipy import stats

from rlfb_jax.training.intervals import mean_interval, paired_difference


def test_intervals_are_students():
  values = np.random.default_rng(0).normal(3, 2, (7, 4))
  found = mean_interval(values, 0.9)
  low, high = stats.t.interval(
    0.9, 6, loc=values.mean(0), scale=stats.sem(values, axis=0)
  )
  np.testing.assert_allclose(found.mean - found.half_width, low)
  np.testing.assert_allclose(found.mean + found.half_width, high)
  np.testing.assert_allclose(mean_interval(values.T, 0.9, axis=1).mean, found.mean)


def test_they_cover_the_mean_as_often_as_promised():
  values = np.random.default_rng(1).normal(5, 3, (3, 4000))
  found = mean_interval(values)
  covered = np.abs(found.mean - 5) <= found.half_width
  assert abs(covered.mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)


def test_one_seed_has_no_interval():
  found = mean_interval([12.0])
  assert np.isnan(found.half_width)
  assert str(found) == '12.0'


@pytest.mark.parametrize(
  ('values', 'text'),
  [
    ([1.0, 3.0], '2.00 ± 12.71'),
    ([-1.0, -3.0], '-2.00 ± 12.71'),
    ([9.0, 11.0], '10.0 ± 12.7'),
    ([2.0], '2.00'),
    ([np.nan], 'nan'),
  ],
)
def test_means_below_ten_are_written_with_two_digits(values, text):
  assert str(mean_interval(values)) == text


def test_pairs_remove_what_seeds_share():
  rng = np.random.default_rng(2)
  shared = rng.normal(0, 100, 10)
  first, second = shared + rng.normal(5, 1, 10), shared + rng.normal(0, 1, 10)
  paired = paired_difference(first, second)
  assert 0 < paired.mean - paired.half_width < 5 < paired.mean + paired.half_width
  assert paired.half_width < 0.1 * mean_interval(first).half_width
  with pytest.raises(ValueError, match='are not pairs'):
    paired_difference(first, second[:1])
