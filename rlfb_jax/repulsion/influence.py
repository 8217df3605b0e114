"""Influence of single steps on the repulsion.

`kl_mode=influence` adds it to rewards, `kl_mode=ratio` with `ratio_form=shaping` to
advantages. By the policy gradient theorem a per-step reward `psi(x_t)` follows the
total derivative of the divergence, visited states included; as a bonus on advantages
it follows the part due to actions.
"""

import jax
import jax.numpy as jnp

from rlfb_jax.core import linalg
from rlfb_jax.repulsion import bounds
from rlfb_jax.repulsion.divergences import DIVERGENCES, distance
from rlfb_jax.repulsion.features import features
from rlfb_jax.repulsion.gaussian import influence, shrink, weighted_moments
from rlfb_jax.repulsion.options import RepulsionOptions
from rlfb_jax.repulsion.records import ClassStatistics, usable_rows


def class_influences(
  options: RepulsionOptions,
  scope: str,
  rows: jax.Array,
  stats: ClassStatistics,
  obs: jax.Array,
  action: jax.Array,
  behaviour: tuple[jax.Array, jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Distances and the influence of each step on them; no gradients.

  Args:
    options: direction and shrinkage.
    scope: `conditional` or `joint`.
    rows: classes asked for, [A] int.
    stats: of the classes.
    obs: raw observations of the steps that are paid, [B, ds].
    action: executed actions, [B, da].
    behaviour: observations and actions of the current behaviour, [M, ds] and [M, da],
      where the steps that are paid are not that themselves.

  Returns:
    Distances [A]; psi [A, B], of mean 0 over the current behaviour; and which classes
    could be used, [A] bool: the others are 0 in both.
  """
  observation_size = obs.shape[-1]
  x = jax.lax.stop_gradient(features(stats.whitening, obs, action))
  current = x
  if behaviour is not None:
    current = jax.lax.stop_gradient(features(stats.whitening, *behaviour))
  mean, cov = weighted_moments(current)
  classes, usable = usable_rows(stats, rows)

  def distances(mean: jax.Array, shrunk: jax.Array) -> jax.Array:
    parts = DIVERGENCES[options.direction](classes, mean, shrunk, observation_size)
    return distance(parts, options.direction, scope)

  shrunk = shrink(cov, options.shrinkage, options.jitter)
  u, pull_back = jax.vjp(distances, mean, shrunk)
  mean_slope, cov_slope = jax.vmap(pull_back)(jnp.eye(rows.shape[0], dtype=x.dtype))
  psi = jax.vmap(lambda g, s: influence(x, mean, cov, g, s, options.shrinkage))(
    mean_slope, cov_slope
  )
  usable &= jnp.isfinite(u)
  u = jnp.where(usable, u, 0)
  return u, jnp.where(usable[:, None], psi, 0), usable


def bonus(
  options: RepulsionOptions,
  scope: str,
  rows: jax.Array,
  weights: jax.Array,
  stats: ClassStatistics,
  obs: jax.Array,
  action: jax.Array,
  clip: float | None,
  behaviour: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
  """`beta sum_i w_i Phi'(u_i) psi_i(x_b)`, [B], without gradient.

  Args:
    weights: omega of the rows, [A]; masked and gated classes are dropped here.
    clip: bound of each |psi_i|, or None.
    options, scope, rows, stats, obs, action, behaviour: see `class_influences`.
  """
  u, psi, usable = class_influences(options, scope, rows, stats, obs, action, behaviour)
  if clip is not None:
    psi = jnp.clip(psi, -clip, clip)
  live = usable & stats.gate[rows]
  size = stats.gaussian.mean.shape[-1] if scope == 'joint' else action.shape[-1]
  kappa = options.kappa_per_dim * size
  slopes = bounds.slopes(u, jnp.where(live, weights, 0), options.bound, kappa)
  return jax.lax.stop_gradient(options.beta * linalg.matmul(slopes, psi))
