"""Means with confidence intervals over seeds, for every table and curve."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special


class Interval(NamedTuple):
  """A mean and half the width of its confidence interval, floats or arrays.

  As text, of floats: `12.3 ± 4.5`, or `1.23 ± 0.45` where the mean is below 10 in size,
  and without the second number where it is not known.
  """

  mean: np.ndarray
  half_width: np.ndarray

  def __str__(self) -> str:
    digits = decimals(self.mean)
    text = f'{self.mean:.{digits}f}'
    if np.isfinite(self.half_width):
      text += f' ± {self.half_width:.{digits}f}'
    return text


def decimals(mean: np.ndarray) -> int:
  """Digits after the point with which a mean and its interval are written."""
  return 1 if abs(float(mean)) >= 10 else 2


def mean_interval(
  values: ArrayLike, confidence: float = 0.95, axis: int = 0
) -> Interval:
  """Student's t interval of a mean.

  Args:
    values: independent values along `axis`, such as one per seed.
    confidence: probability that the interval covers the true mean, where the
      values are normal.
    axis: the axis that is averaged.

  Returns:
    Mean and half width; half the width is NaN for a single value, which says nothing
    about spread.
  """
  values = np.asarray(values, np.float64)
  count = values.shape[axis]
  mean = values.mean(axis)
  if count < 2:
    return Interval(mean, np.full_like(mean, np.nan))
  error = values.std(axis, ddof=1) / np.sqrt(count)
  return Interval(mean, special.stdtrit(count - 1, 0.5 + confidence / 2) * error)


def paired_difference(
  first: ArrayLike, second: ArrayLike, confidence: float = 0.95
) -> Interval:
  """Interval of `first - second` where seeds come in pairs.

  Args:
    first: one value per seed, [S].
    second: the same seeds under another method, [S].
    confidence: as in `mean_interval`.

  Raises:
    ValueError: if the seeds do not match in number.
  """
  first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
  if first.shape != second.shape:
    raise ValueError(
      f'values of shapes {first.shape} and {second.shape} are not pairs; '
      'both need the same seeds.'
    )
  return mean_interval(first - second, confidence)
