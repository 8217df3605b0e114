"""What to watch while a policy is being pushed away, and when to stop."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.core.padding import Count, fill
from rlfb_jax.core.types import Key, Metrics, Params
from rlfb_jax.repulsion.divergences import DIVERGENCES
from rlfb_jax.repulsion.features import features
from rlfb_jax.repulsion.gaussian import shrink, weighted_moments
from rlfb_jax.repulsion.options import RepulsionOptions
from rlfb_jax.repulsion.policy import (
  Policy,
  PolicyBatch,
  distribution,
  saturated_share,
  squashed_entropy,
)
from rlfb_jax.repulsion.records import ClassStatistics

ENTROPY_FLOOR_PER_DIM = -3.0
SATURATION_LIMIT = 0.9
PATIENCE = 5


def sampling_floor(
  d: int, class_rows: jax.Array, policy_rows: jax.Array | int
) -> jax.Array:
  """KL between two Gaussian fits of the same law: `d (d + 3) / 4 (1/N + 1/B)` nats.

  A raw KL below this says nothing. Steps of one segment are correlated, so the
  true floor is higher; shrinkage lowers it.
  """
  inverse = 1 / jnp.maximum(class_rows, 1) + 1 / jnp.maximum(policy_rows, 1)
  return d * (d + 3) / 4 * inverse


def diagnose(
  options: RepulsionOptions,
  policy: Policy,
  num_classes: Count,
  params: Params,
  stats: ClassStatistics,
  batch: PolicyBatch,
  key: Key,
) -> Metrics:
  """Numbers of one iteration; no gradients, same yardstick in every mode.

  Args:
    options: direction, shrinkage.
    policy: see `Policy`.
    num_classes: n.
    params: of the actor.
    stats: of the classes, R = n + 1 rows.
    batch: states of the current rollout; only `obs` is read.
    key: noise of the re-sampled actions.

  Returns:
    By class, [n], NaN where masked and for classes that the run does not have but
    others of its program: `kl/state`, `kl/action` (nats, in the chosen
    direction), `kl/floor` (joint sampling floor), and, where masked too,
    `kl/segments`. Scalars:
    `policy/entropy` (of executed actions), `policy/saturation` (share of action
    entries beyond 0.97), `policy/log_std`.
  """
  params, batch = jax.lax.stop_gradient((params, batch))
  obs = batch.obs
  mean, log_std = distribution(policy, params, obs, sigma_grad=False)
  noise = jax.random.normal(key, mean.shape, mean.dtype)
  action = jnp.tanh(mean + jnp.exp(log_std) * noise)

  x = features(stats.whitening, obs, action)
  centre, cov = weighted_moments(x)
  cov = shrink(cov, options.shrinkage, options.jitter)
  parts = DIVERGENCES[options.direction](stats.gaussian, centre, cov, obs.shape[-1])

  def by_class(values: jax.Array) -> jax.Array:
    values = jnp.where(stats.mask, values, jnp.nan)
    return fill(num_classes, values[:-1], jnp.nan)

  return {
    'kl/state': by_class(parts.state),
    'kl/action': by_class(parts.action),
    'kl/floor': by_class(sampling_floor(x.shape[-1], stats.num_rows, obs.shape[0])),
    'kl/segments': fill(num_classes, stats.num_segments[:-1], jnp.nan),
    'policy/entropy': jnp.mean(squashed_entropy(mean, log_std, noise)),
    'policy/saturation': saturated_share(action),
    'policy/log_std': jnp.mean(log_std),
  }


class AbortDecision(NamedTuple):
  """Attributes: strikes, bad looks in a row, [] int32; abort, [] bool."""

  strikes: jax.Array
  abort: jax.Array


def abort_rule(
  strikes: jax.Array, entropy: jax.Array, saturation: jax.Array, action_size: int
) -> AbortDecision:
  """Whether the policy has collapsed: switch the repulsion off for this seed.

  A look is bad if the entropy is below -3 nats per action dimension or more than 90 %
  of action entries are saturated; five bad ones in a row abort. PPO looks at each
  rollout, an agent with a replay buffer after each chunk.

  Args:
    strikes: bad looks in a row before this one, [] int32.
    entropy: of executed actions, [] nats; NaN counts as bad.
    saturation: share of saturated action entries, [].
    action_size: da.
  """
  healthy = entropy >= ENTROPY_FLOOR_PER_DIM * action_size
  healthy &= saturation <= SATURATION_LIMIT
  strikes = jnp.where(healthy, 0, strikes + 1).astype(jnp.int32)
  return AbortDecision(strikes, strikes >= PATIENCE)
