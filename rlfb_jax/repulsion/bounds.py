"""Phi: how distance from the bad classes is rewarded, and how steeply.

Maximising KL(class || policy) has no maximum. The saturating bound pays less and
less for distance, class by class; the two published forms do not.
"""

import jax
import jax.numpy as jnp

LOG_FLOOR = 1e-6


def total(u: jax.Array, weights: jax.Array, bound: str, kappa: float) -> jax.Array:
  """`sum_i w_i Phi(u_i)`, or `ln(1e-6 + sum_i w_i u_i)` for `logsum`.

  Args:
    u: distances, [R]; negative ones (rounding) count as 0.
    weights: w_i >= 0, [R], zero for classes that are masked.
    bound: `saturating`, `identity` or `logsum`.
    kappa: cap of one class, in the unit of `u`; for `saturating`.

  Returns:
    [], and 0 where all weights are 0.
  """
  u = jnp.where(u > 0, u, 0)
  if bound == 'logsum':
    value = jnp.log(LOG_FLOOR + jnp.sum(weights * u))
    return jnp.where(jnp.any(weights > 0), value, 0)
  if bound == 'saturating':
    u = -kappa * jnp.expm1(-u / kappa)
  return jnp.sum(weights * u)


def slopes(u: jax.Array, weights: jax.Array, bound: str, kappa: float) -> jax.Array:
  """Derivative of `total` by `u`, [R]: `w_i Phi'(u_i)`."""
  positive = jnp.where(u > 0, u, 0)
  if bound == 'logsum':
    per_nat = weights / (LOG_FLOOR + jnp.sum(weights * positive))
  elif bound == 'saturating':
    per_nat = weights * jnp.exp(-positive / kappa)
  else:
    per_nat = weights
  return jnp.where(u > 0, per_nat, 0)
