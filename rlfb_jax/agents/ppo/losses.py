"""PPO's losses and advantages, as functions of arrays."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.core import extrema
from rlfb_jax.core.types import Metrics


def generalized_advantages(
  rewards: jax.Array,
  values: jax.Array,
  next_values: jax.Array,
  terminated: jax.Array,
  truncated: jax.Array,
  discount: float,
  gae_lambda: float,
  *,
  stop_at_time_limit: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """GAE (Schulman et al. 2016, eq. 16) with time limits kept apart from ends.

  Args:
    rewards: [T, N].
    values: of the observations acted on, [T, N].
    next_values: of the observations that followed, before any auto-reset, [T, N].
    terminated: the episode ended for good: no bootstrap, [T, N] bool.
    truncated: the episode ended by its time limit: bootstrap, then cut, [T, N].
    discount: gamma.
    gae_lambda: lambda.
    stop_at_time_limit: treat time limits as ends, as B-Pref's PrefPPO does.

  Returns:
    Advantages and value targets, both [T, N].
  """
  ended = terminated | truncated if stop_at_time_limit else terminated
  alive = 1.0 - ended.astype(jnp.float32)
  continues = alive * (1.0 - truncated.astype(jnp.float32))
  deltas = rewards + discount * alive * next_values - values

  def backwards(
    advantage: jax.Array, step: tuple[jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array]:
    delta, go_on = step
    advantage = delta + discount * gae_lambda * go_on * advantage
    return advantage, advantage

  _, advantages = jax.lax.scan(
    backwards, jnp.zeros_like(deltas[0]), (deltas, continues), reverse=True
  )
  return advantages, advantages + values


def standardize(values: jax.Array, epsilon: float = 1e-8) -> jax.Array:
  """Zero mean and unit deviation over the batch."""
  return (values - jnp.mean(values)) / (jnp.std(values) + epsilon)


class Surrogate(NamedTuple):
  """The clipped objective and what is watched beside it, all []."""

  loss: jax.Array
  approx_kl: jax.Array
  clip_fraction: jax.Array


def clipped_surrogate(
  log_prob: jax.Array,
  old_log_prob: jax.Array,
  advantages: jax.Array,
  clip_range: jax.Array | float,
) -> Surrogate:
  """PPO's policy loss (Schulman et al. 2017, eq. 7), to be minimised.

  Args:
    log_prob: under the policy that learns, [B].
    old_log_prob: under the policy that acted, [B].
    advantages: [B].
    clip_range: epsilon; ratios are held in [1 - epsilon, 1 + epsilon].

  Returns:
    The loss, an estimate of KL(old || new) in nats, (ratio - 1) - log ratio, which
    is never negative (Schulman, "Approximating KL divergence", 2020), and the share
    of clipped ratios.
  """
  log_ratio = log_prob - old_log_prob
  ratio = jnp.exp(log_ratio)
  clipped = extrema.clip(ratio, 1.0 - clip_range, 1.0 + clip_range)
  return Surrogate(
    loss=-jnp.mean(extrema.minimum(ratio * advantages, clipped * advantages)),
    approx_kl=jnp.mean((ratio - 1.0) - log_ratio),
    clip_fraction=jnp.mean((jnp.abs(ratio - 1.0) > clip_range).astype(jnp.float32)),
  )


def explained_variance(predictions: jax.Array, targets: jax.Array) -> jax.Array:
  """Share of the targets' variance that the values explain, at most 1, []."""
  return 1.0 - jnp.var(targets - predictions) / (jnp.var(targets) + 1e-8)


def mean_metrics(metrics: Metrics) -> Metrics:
  """Averages metrics over every axis that scans have stacked."""
  return {name: jnp.mean(value) for name, value in metrics.items()}
