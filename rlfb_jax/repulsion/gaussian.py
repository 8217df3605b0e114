"""Gaussians in whitened feature space: moments, shrinkage, influence.

Notation, as in the code: `P` is the Gaussian of a rating class, `Q` that of the
policy, `d = ds + da` the feature size with state dimensions first, `R` classes.
"""

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.core import linalg


class Gaussian(flax.struct.PyTreeNode):
  """Normal laws by their Cholesky factors.

  Attributes:
    mean: [..., d].
    chol: lower factor of the covariance, [..., d, d].
  """

  mean: jax.Array
  chol: jax.Array


def weighted_moments(
  x: jax.Array, weights: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """Mean and covariance under self-normalised weights.

  The divisor is the sum of the weights (maximum likelihood, not N - 1).

  Args:
    x: rows, [B, d], finite even where the weight is 0.
    weights: non-negative, [B]; None for equal ones.

  Returns:
    Mean [d] and covariance [d, d]; zeros if all weights are 0.
  """
  if weights is None:
    weights = jnp.ones(x.shape[0], x.dtype)
  total = jnp.sum(weights)
  w = (weights / jnp.where(total > 0, total, 1))[:, None]
  mean = jnp.sum(w * x, axis=0)
  centred = x - mean
  return mean, linalg.matmul((w * centred).T, centred)


def row_moments(x: jax.Array, member: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean [R, d] and covariance [R, d, d] of steps [C, H, d] by row of `member`."""
  flat = x.reshape(-1, x.shape[-1])

  def one_row(in_row: jax.Array) -> tuple[jax.Array, jax.Array]:
    weight = jnp.repeat(in_row.astype(x.dtype), x.shape[1])
    return weighted_moments(flat, weight)

  return jax.lax.map(one_row, member)


def shrink(cov: jax.Array, shrinkage: float, jitter: float) -> jax.Array:
  """`(1 - alpha) S + (alpha + jitter) I`; with alpha > 0 every KL is finite."""
  eye = jnp.eye(cov.shape[-1], dtype=cov.dtype)
  return (1 - shrinkage) * cov + (shrinkage + jitter) * eye


def influence(
  x: jax.Array,
  mean: jax.Array,
  cov: jax.Array,
  mean_slope: jax.Array,
  cov_slope: jax.Array,
  shrinkage: float,
) -> jax.Array:
  """First-order effect of one row's weight on a divergence of the moments.

  For `D(mean, shrink(cov))` with gradients g and G, moving a fraction e of the
  mass to a point x changes D by `e psi(x)`, where
  `psi(x) = (x - m)' g + (1 - alpha) [(x - m)' G (x - m) - tr(G S)]`.
  Its mean under the weights that gave the moments is 0, and the derivative of D
  by the unnormalised weight of row b is `psi(x_b) / sum(weights)`.

  Args:
    x: rows, [B, d].
    mean: of the moments, [d].
    cov: before shrinkage, S, [d, d].
    mean_slope: dD/dmean, g, [d].
    cov_slope: dD/dSigma after shrinkage, G, [d, d].
    shrinkage: alpha.

  Returns:
    psi, [B], in units of D.
  """
  slope = (cov_slope + cov_slope.T) / 2
  centred = x - mean
  quadratic = jnp.sum(linalg.matmul(centred, slope) * centred, axis=-1)
  linear = jnp.sum(centred * mean_slope, axis=-1)
  return linear + (1 - shrinkage) * (quadratic - jnp.sum(slope * cov))
