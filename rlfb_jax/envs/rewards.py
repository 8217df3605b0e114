"""Soft indicator functions, from which the suite's rewards are made.

Same values as `dm_control.utils.rewards.tolerance` (Tassa et al. 2018, "DeepMind
Control Suite", section 2).
"""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

Sigmoid = Literal['gaussian', 'linear', 'quadratic']


def _gaussian(distance: jax.Array, value: float) -> jax.Array:
  return jnp.exp(math.log(value) * jnp.square(distance))


def _linear(distance: jax.Array, value: float) -> jax.Array:
  return jnp.maximum(1.0 - (1.0 - value) * distance, 0.0)


def _quadratic(distance: jax.Array, value: float) -> jax.Array:
  return jnp.maximum(1.0 - (1.0 - value) * jnp.square(distance), 0.0)


_SIGMOIDS: dict[str, Callable[[jax.Array, float], jax.Array]] = {
  'gaussian': _gaussian,
  'linear': _linear,
  'quadratic': _quadratic,
}


def tolerance(
  x: jax.Array,
  bounds: tuple[float, float] = (0.0, 0.0),
  margin: float = 0.0,
  sigmoid: Sigmoid = 'gaussian',
  value_at_margin: float = 0.1,
) -> jax.Array:
  """1 where `x` lies within the bounds, falling towards 0 with the distance.

  Args:
    x: any shape, float32.
    bounds: lower and upper end of the interval, ends included; may be infinite.
    margin: distance outside the bounds, in units of `x`, at which the value is
      `value_at_margin`; 0 makes the function an indicator.
    sigmoid: how the value falls; `linear` and `quadratic` reach 0 and stay there.
    value_at_margin: in (0, 1), or [0, 1) for `linear` and `quadratic`.

  Returns:
    Values in [0, 1] of the shape of `x`; their gradient is finite everywhere.

  Raises:
    ValueError: at trace time, if an argument is out of its range.
  """
  lower, upper = bounds
  if lower > upper:
    raise ValueError(f'bounds={bounds} must be ordered as (lower, upper).')
  if margin < 0:
    raise ValueError(f'margin={margin} must be at least 0; try 0.')
  if sigmoid not in _SIGMOIDS:
    raise ValueError(f'sigmoid={sigmoid} is not one of {", ".join(_SIGMOIDS)}.')
  zero_allowed = sigmoid != 'gaussian'
  if not (0 < value_at_margin < 1 or (value_at_margin == 0 and zero_allowed)):
    low = 'at least' if zero_allowed else 'greater than'
    raise ValueError(
      f'value_at_margin={value_at_margin} must be {low} 0 and less than 1; try 0.1.'
    )
  if margin == 0:
    return ((lower <= x) & (x <= upper)).astype(x.dtype)
  # The distance is 0 inside, where every sigmoid is 1; an infinite end drops out.
  distance = jnp.maximum(jnp.maximum(lower - x, x - upper), 0.0) / margin
  return _SIGMOIDS[sigmoid](distance, value_at_margin)
