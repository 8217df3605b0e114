"""Statistics of few runs on few tasks, after Agarwal et al. (2021).

"Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021:
robust aggregates, intervals from a bootstrap that resamples the runs of each task by
themselves, profiles of the whole distribution, and the probability of improvement.

`Scores` are one array a task, each of its own number of runs [S]. Every random draw
comes from a seed, so that a report says the same twice.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Scores = Sequence[np.ndarray]  # One array of runs [S] for each task.

CONFIDENCE = 0.95
RESAMPLES = 2000
# Resampled values that are sorted at a time, so that memory stays small.
_BLOCK_VALUES = 2**21


class Estimate(NamedTuple):
  """A value and its interval, floats or arrays; the interval is NaN where unknown."""

  value: np.ndarray
  low: np.ndarray
  high: np.ndarray


def interquartile_mean(values: np.ndarray) -> np.ndarray:
  """Mean of the middle half along the last axis: a quarter is cut off at each end.

  Of n values, `floor(n / 4)` are cut at each end, as in `scipy.stats.trim_mean`.
  """
  values = np.sort(np.asarray(values, np.float64), axis=-1)
  cut = values.shape[-1] // 4
  return values[..., cut : values.shape[-1] - cut].mean(-1)


def mean(values: np.ndarray) -> np.ndarray:
  """Mean along the last axis."""
  return np.asarray(values, np.float64).mean(-1)


def median(values: np.ndarray) -> np.ndarray:
  """Median along the last axis."""
  return np.median(np.asarray(values, np.float64), axis=-1)


def resample(scores: Scores, resamples: int, seed: int) -> np.ndarray:
  """Runs drawn with replacement within each task, [resamples, runs of all tasks]."""
  rng = np.random.default_rng(seed)
  drawn = [
    np.asarray(runs, np.float64)[rng.integers(len(runs), size=(resamples, len(runs)))]
    for runs in scores
  ]
  return np.concatenate(drawn, axis=1)


def aggregate(
  scores: Scores,
  statistic: Callable[[np.ndarray], np.ndarray] = interquartile_mean,
  *,
  resamples: int = RESAMPLES,
  confidence: float = CONFIDENCE,
  seed: int = 0,
) -> Estimate:
  """A statistic of all runs of all tasks, with a stratified percentile bootstrap.

  Args:
    scores: at least one run in each task.
    statistic: of values along the last axis.
    resamples: how often runs are drawn anew.
    confidence: share of resampled values that lies inside the interval.
    seed: of the draws.

  Returns:
    The interval is NaN where every task has a single run, which says nothing about
    spread.
  """
  pooled = np.concatenate([np.asarray(runs, np.float64) for runs in scores])
  value = statistic(pooled)
  if all(len(runs) < 2 for runs in scores):
    return _unknown(value)
  return _percentiles(value, statistic(resample(scores, resamples, seed)), confidence)


def performance_profile(
  scores: Scores,
  thresholds: np.ndarray,
  *,
  resamples: int = RESAMPLES,
  confidence: float = CONFIDENCE,
  seed: int = 0,
) -> Estimate:
  """Share of runs above each threshold, averaged over tasks, with a pointwise band.

  Args:
    scores: at least one run in each task.
    thresholds: [K].
    resamples: as in `aggregate`.
    confidence: likewise.
    seed: likewise.

  Returns:
    Leaves [K].
  """
  thresholds = np.asarray(thresholds, np.float64)
  value = np.mean([_share_above(np.asarray(s)[None], thresholds) for s in scores], 0)[0]
  if all(len(runs) < 2 for runs in scores):
    return _unknown(value)
  rng = np.random.default_rng(seed)
  total = np.zeros((resamples, len(thresholds)))
  for runs in scores:
    drawn = np.asarray(runs)[rng.integers(len(runs), size=(resamples, len(runs)))]
    total += _share_above(drawn, thresholds)
  return _percentiles(value, total / len(scores), confidence)


def _share_above(drawn: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
  """Share of each row's values above each threshold, [B, S] -> [B, K]."""
  shares = np.empty((len(drawn), len(thresholds)))
  rows = max(1, _BLOCK_VALUES // (drawn.shape[1] * len(thresholds)))
  for start in range(0, len(drawn), rows):
    block = drawn[start : start + rows, :, None] > thresholds
    shares[start : start + rows] = block.mean(axis=1)
  return shares


def probability_of_improvement(
  first: Scores,
  second: Scores,
  *,
  resamples: int = RESAMPLES,
  confidence: float = CONFIDENCE,
  seed: int = 0,
) -> Estimate:
  """Chance that a run of the first is better than one of the second, mean over tasks.

  In each task this is the Mann-Whitney U statistic over the number of pairs: ties
  count half. The bootstrap draws the runs of both sides, task by task.

  Args:
    first: at least one run in each task.
    second: the same tasks, in the same order.
    resamples: as in `aggregate`.
    confidence: likewise.
    seed: likewise.

  Raises:
    ValueError: if the tasks are not as many.
  """
  if len(first) != len(second):
    raise ValueError(
      f'{len(first)} tasks cannot be compared with {len(second)}; both sides need the '
      'same tasks.'
    )
  rng = np.random.default_rng(seed)
  values, drawn = [], np.zeros(resamples)
  for x, y in zip(first, second, strict=True):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    better = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    values.append(better.mean())
    rows = rng.integers(len(x), size=(resamples, len(x)))
    columns = rng.integers(len(y), size=(resamples, len(y)))
    # Each draw is a row weight and a column weight on the table of wins.
    row_weights = _counts(rows, len(x)) / len(x)
    column_weights = _counts(columns, len(y)) / len(y)
    drawn += np.einsum('bi,ij,bj->b', row_weights, better, column_weights)
  value = np.mean(values)
  if all(len(x) < 2 and len(y) < 2 for x, y in zip(first, second, strict=True)):
    return _unknown(value)
  return _percentiles(value, drawn / len(first), confidence)


def _counts(drawn: np.ndarray, size: int) -> np.ndarray:
  """How often each index was drawn in each row, [B, n] -> [B, size]."""
  flat = drawn + size * np.arange(len(drawn))[:, None]
  return np.bincount(flat.ravel(), minlength=size * len(drawn)).reshape(-1, size)


def _unknown(value: np.ndarray) -> Estimate:
  nothing = np.full_like(np.asarray(value, np.float64), np.nan)
  return Estimate(value, nothing, nothing)


def _percentiles(value: np.ndarray, drawn: np.ndarray, confidence: float) -> Estimate:
  tail = 100 * (1 - confidence) / 2
  low, high = np.percentile(drawn, [tail, 100 - tail], axis=0)
  return Estimate(value, low, high)
