"""Minima, maxima and clips to differentiate through: exactly one operand is chosen.

JAX finds out where a minimum came from by comparing it with its operands
(`jnp.min` divides by how many are equal to it, `jnp.minimum` and `jnp.clip` share
between those that are). XLA may compute the operand twice, rounded otherwise: then
none is equal, and the gradient is NaN (0 / 0) or silently zero. Seen on CPU: the
gradient of SAC's `min_c Q_c` in one program of several. Here the operand is chosen by
one comparison, on which value and gradient agree however often it is computed.
"""

import jax
import jax.numpy as jnp


def minimum(x: jax.Array, y: jax.Array) -> jax.Array:
  """The smaller one, elementwise; x, and its gradient alone, where they are equal."""
  return jnp.where(x <= y, x, y)


def clip(x: jax.Array, low: jax.Array | float, high: jax.Array | float) -> jax.Array:
  """x held in [low, high]; its gradient is 1 inside, edges included, and 0 outside."""
  return jnp.where(x < low, low, jnp.where(x > high, high, x))


def min_over_first(values: jax.Array) -> jax.Array:
  """The minimum over a short leading axis, [C, ...] -> [...]; the first of equals."""
  least = values[0]
  for c in range(1, values.shape[0]):
    least = minimum(least, values[c])
  return least


def min_of(values: jax.Array) -> jax.Array:
  """The minimum of a vector, [B] -> []; the first of equals has all the gradient."""
  return values[jnp.argmin(values)]


def max_of(values: jax.Array) -> jax.Array:
  """The maximum of a vector, [B] -> []; the first of equals has all the gradient."""
  return values[jnp.argmax(values)]
