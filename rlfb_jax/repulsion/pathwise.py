"""`kl_mode=pathwise`: the divergence as a function of re-sampled actions.

States are data; actions are drawn anew through the policy, so the gradient reaches
the parameters by `da/dtheta`. The cross-covariance of actions with states is what
tells `a = K s` from `a = -K s`, whose means agree.
"""

import jax
import jax.numpy as jnp

from rlfb_jax.core import distributions
from rlfb_jax.core.types import Key, Params
from rlfb_jax.repulsion.divergences import DIVERGENCES, Parts, distance
from rlfb_jax.repulsion.features import features
from rlfb_jax.repulsion.gaussian import shrink, weighted_moments
from rlfb_jax.repulsion.options import RepulsionOptions
from rlfb_jax.repulsion.policy import Policy, PolicyBatch, distribution
from rlfb_jax.repulsion.records import ClassStatistics, usable_rows


def sample_actions(
  policy: Policy, params: Params, obs: jax.Array, key: Key, sigma_grad: bool
) -> jax.Array:
  """`tanh(mean + sg(std) eps)`, [B, da], with fresh noise."""
  mean, log_std = distribution(policy, params, obs, sigma_grad)
  return jnp.tanh(distributions.sample(key, mean, log_std))


def divergences(
  options: RepulsionOptions,
  stats: ClassStatistics,
  rows: jax.Array,
  obs: jax.Array,
  action: jax.Array,
  weights: jax.Array | None = None,
) -> Parts:
  """Divergences of the classes from weighted steps; also for other samplers.

  Args:
    options: direction and shrinkage.
    stats: of the classes.
    rows: classes asked for, [A] int.
    obs: raw observations, [B, ds].
    action: executed actions, [B, da], through which gradients flow.
    weights: non-negative, [B]; None for equal ones.

  Returns:
    Parts of shape [A]; NaN if the policy's covariance cannot be factorised.
  """
  x = features(stats.whitening, obs, action)
  mean, cov = weighted_moments(x, weights)
  cov = shrink(cov, options.shrinkage, options.jitter)
  classes, _ = usable_rows(stats, rows)
  return DIVERGENCES[options.direction](classes, mean, cov, obs.shape[-1])


def class_distances(
  options: RepulsionOptions,
  policy: Policy,
  rows: jax.Array,
  params: Params,
  stats: ClassStatistics,
  batch: PolicyBatch,
  key: Key,
) -> jax.Array:
  """Distance of the policy from each class asked for, [A]; see `divergences`."""
  action = sample_actions(policy, params, batch.obs, key, options.sigma_grad)
  parts = divergences(options, stats, rows, batch.obs, action)
  return distance(parts, options.direction, options.kl_scope)
