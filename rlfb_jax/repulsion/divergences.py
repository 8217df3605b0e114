"""Divergences between class Gaussians and the policy's, split by the chain rule.

With features ordered states first, `KL_joint = KL_state + KL_action_given_state`,
and row r of a Cholesky factor carries dimension r given those before it, so each
part is a sum over rows. The Bhattacharyya distance splits in the same way.

All functions take `(p, mean, cov, observation_size)`: R class Gaussians `p`, the
policy's moments [d] and [d, d] (after shrinkage), and return `Parts`. Derivatives flow
to `mean` and `cov`; class Gaussians are data.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.core import linalg
from rlfb_jax.repulsion.gaussian import Gaussian


class Parts(NamedTuple):
  """A divergence from each class, in nats, split by the chain rule.

  Attributes:
    state: of the state marginals, [R].
    action: of actions given states, [R].
  """

  state: jax.Array
  action: jax.Array


Divergence = Callable[[Gaussian, jax.Array, jax.Array, int], Parts]


def _split(rows: jax.Array, observation_size: int) -> Parts:
  return Parts(
    jnp.sum(rows[..., :observation_size], axis=-1),
    jnp.sum(rows[..., observation_size:], axis=-1),
  )


def _log_diagonal(chol: jax.Array) -> jax.Array:
  return jnp.log(jnp.diagonal(chol, axis1=-2, axis2=-1))


def _forward_rows(p: Gaussian, chol: jax.Array, columns: jax.Array) -> jax.Array:
  """KL(P || Q) by row, [R, d], from `columns = L_Q^-1 [L_P, mean_Q - mean_P]`."""
  squares = jnp.sum(columns**2, axis=-1)
  return (squares - 1) / 2 + _log_diagonal(chol) - _log_diagonal(p.chol)


def _class_columns(p: Gaussian, mean: jax.Array) -> jax.Array:
  """`[L_P, mean_Q - mean_P]`, [R, d, d + 1]."""
  return jnp.concatenate([p.chol, (mean - p.mean)[..., None]], axis=-1)


def forward_kl_by_autodiff(
  p: Gaussian, mean: jax.Array, cov: jax.Array, observation_size: int
) -> Parts:
  """KL(P || Q), differentiated through the Cholesky factor; the slow reference."""
  chol = linalg.cholesky(cov)
  columns = linalg.solve_lower(chol, _class_columns(p, mean))
  return _split(_forward_rows(p, chol, columns), observation_size)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def forward_kl(
  p: Gaussian, mean: jax.Array, cov: jax.Array, observation_size: int
) -> Parts:
  """KL(P || Q) = [tr(A S_P) + D'A D - d + ln det S_Q - ln det S_P] / 2, A = S_Q^-1.

  One factorisation of the policy's covariance and one triangular solve serve all
  classes, values and gradients. Gradients are in closed form,
  `dKL/dmean_Q = A D` and `dKL/dS_Q = [A - A (S_P + D D') A] / 2`, restricted to
  the part asked for. Where a factor is not finite the gradient is zero.

  Args:
    p: class Gaussians, R of them.
    mean: mean_Q, [d].
    cov: S_Q, symmetric positive definite, [d, d].
    observation_size: leading dimensions that are states.
  """
  return _forward_kl_fwd(p, mean, cov, observation_size)[0]


def _forward_kl_fwd(
  p: Gaussian, mean: jax.Array, cov: jax.Array, observation_size: int
) -> tuple[Parts, Any]:
  num_classes, d = p.mean.shape
  columns = jnp.moveaxis(_class_columns(p, mean), 0, 1).reshape(d, -1)
  eye = jnp.eye(d, dtype=cov.dtype)
  right_sides = jnp.concatenate([eye, columns], axis=-1)
  chol, solved = linalg.cholesky_solve(cov, right_sides)
  inverse, columns = solved[:, :d], solved[:, d:].reshape(d, num_classes, d + 1)
  columns = jnp.moveaxis(columns, 1, 0)
  parts = _split(_forward_rows(p, chol, columns), observation_size)
  return parts, (p, inverse, columns)


def _forward_kl_bwd(
  observation_size: int, residuals: Any, cotangents: Parts
) -> tuple[Gaussian, jax.Array, jax.Array]:
  p, inverse, columns = residuals
  d = inverse.shape[-1]
  is_state = jnp.arange(d) < observation_size
  # A masked class arrives with cotangent 0; 0 * NaN must not revive it.
  inverse = jnp.where(jnp.isfinite(inverse), inverse, 0)
  columns = jnp.where(jnp.isfinite(columns), columns, 0)

  # With W = L_Q^-1 and y the last column: A D = W'y and G = W'(I - YY')W / 2. The
  # state marginal is the same with W and Y cut to their state rows, and the action
  # part is the difference, so one masked sum over classes gives any mixture.
  per_row = jnp.where(is_state, cotangents.state[:, None], cotangents.action[:, None])
  pulled = jnp.sum(per_row * columns[..., -1], axis=0)
  mean_slope = linalg.matmul(inverse.T, pulled[:, None])[:, 0]

  both_states = is_state[:, None] & is_state[None, :]
  product = linalg.matmul(columns, linalg.transpose(columns))
  middle = jnp.eye(d, dtype=inverse.dtype) - product
  factor = jnp.where(
    both_states, cotangents.state[:, None, None], cotangents.action[:, None, None]
  )
  middle = jnp.sum(factor * middle, axis=0)
  cov_slope = linalg.matmul(inverse.T, linalg.matmul(middle, inverse)) / 2
  return jax.tree.map(jnp.zeros_like, p), mean_slope, cov_slope


forward_kl.defvjp(_forward_kl_fwd, _forward_kl_bwd)


def _guarded(cov: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The covariance, or I where it cannot be factorised, so that no NaN is born."""
  chol = linalg.cholesky(jax.lax.stop_gradient(cov))
  ok = jnp.all(jnp.isfinite(chol))
  eye = jnp.eye(cov.shape[-1], dtype=cov.dtype)
  return jnp.where(ok, cov, eye), ok


def reverse_kl(
  p: Gaussian, mean: jax.Array, cov: jax.Array, observation_size: int
) -> Parts:
  """KL(Q || P); NaN value and zero gradient where `cov` cannot be factorised."""
  cov, ok = _guarded(cov)
  chol = linalg.cholesky(cov)
  right = jnp.broadcast_to(chol, p.chol.shape)
  right = jnp.concatenate([right, (mean - p.mean)[..., None]], axis=-1)
  columns = linalg.solve_lower(p.chol, right)
  rows = (jnp.sum(columns**2, axis=-1) - 1) / 2
  rows = rows + _log_diagonal(p.chol) - _log_diagonal(chol)
  return _split(jnp.where(ok, rows, jnp.nan), observation_size)


def bhattacharyya(
  p: Gaussian, mean: jax.Array, cov: jax.Array, observation_size: int
) -> Parts:
  """Bhattacharyya distance -ln(coefficient), a symmetric divergence in nats.

  `D'M^-1 D / 8 + ln(det M / sqrt(det S_P det S_Q)) / 2` with `M = (S_P + S_Q) / 2`.
  NaN value and zero gradient where `cov` cannot be factorised.
  """
  cov, ok = _guarded(cov)
  chol = linalg.cholesky(cov)
  class_cov = linalg.matmul(p.chol, linalg.transpose(p.chol))
  middle = linalg.cholesky((class_cov + cov) / 2)
  column = linalg.solve_lower(middle, (mean - p.mean)[..., None])[..., 0]
  rows = column**2 / 8 + _log_diagonal(middle)
  rows = rows - (_log_diagonal(p.chol) + _log_diagonal(chol)) / 2
  return _split(jnp.where(ok, rows, jnp.nan), observation_size)


DIVERGENCES: dict[str, Divergence] = {
  'forward': forward_kl,
  'reverse': reverse_kl,
  'bhattacharyya': bhattacharyya,
}


def distance(parts: Parts, direction: str, scope: str) -> jax.Array:
  """The number to be raised, per class [R].

  KLs in nats; for `bhattacharyya` one minus the coefficient, in [0, 1).
  """
  nats = parts.action if scope == 'conditional' else parts.state + parts.action
  return -jnp.expm1(-nats) if direction == 'bhattacharyya' else nats
