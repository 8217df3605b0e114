"""`kl_mode=ratio`: the divergence as a function of importance weights.

Stored steps are kept and weighted by `pi / pi_old`. The gradient is a policy
gradient whose advantage is the influence function, so the same push can be given
inside PPO's clip by adding that influence to the advantages.
"""

import jax
import jax.numpy as jnp

from rlfb_jax.core import distributions, extrema
from rlfb_jax.core.types import Key, Params
from rlfb_jax.repulsion.divergences import distance
from rlfb_jax.repulsion.options import RepulsionOptions
from rlfb_jax.repulsion.pathwise import divergences
from rlfb_jax.repulsion.policy import Policy, PolicyBatch, distribution
from rlfb_jax.repulsion.records import ClassStatistics


def importance_weights(
  options: RepulsionOptions,
  policy: Policy,
  params: Params,
  batch: PolicyBatch,
) -> jax.Array:
  """`clip(pi / pi_old, 1/c, c)`, [B]; sg on sigma by default."""
  if batch.raw_action is None or batch.log_prob is None:
    raise ValueError(
      'kl_mode=ratio needs raw_action and log_prob in the batch, but one is None.'
    )
  mean, log_std = distribution(policy, params, batch.obs, options.sigma_grad)
  log_ratio = distributions.log_prob(batch.raw_action, mean, log_std) - batch.log_prob
  limit = jnp.log(options.ratio_clip)
  return jnp.exp(extrema.clip(log_ratio, -limit, limit))


def class_distances(
  options: RepulsionOptions,
  policy: Policy,
  rows: jax.Array,
  params: Params,
  stats: ClassStatistics,
  batch: PolicyBatch,
  key: Key,
) -> jax.Array:
  """Distance of the re-weighted steps from each class asked for, [A]."""
  del key  # Nothing is drawn: actions are those taken.
  weights = importance_weights(options, policy, params, batch)
  action = jnp.tanh(jnp.asarray(batch.raw_action))
  parts = divergences(options, stats, rows, batch.obs, action, weights)
  return distance(parts, options.direction, options.kl_scope)
