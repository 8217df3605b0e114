"""SAC's losses, as functions of parameters and batches (Haarnoja et al. 2018b)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.agents.critics import q_values
from rlfb_jax.agents.sac.config import SACOptions
from rlfb_jax.agents.sac.networks import policy, sample_action
from rlfb_jax.core.extrema import min_over_first
from rlfb_jax.core.networks import MLP


def soft_values(
  actor: MLP,
  critic: MLP,
  temperature: jax.Array,
  obs: jax.Array,
  noise: jax.Array,
  options: SACOptions,
) -> jax.Array:
  """`min_c Q_c(s, a) - alpha log pi(a | s)`, `a ~ pi`, [B] (eq. 3)."""
  action, log_prob = sample_action(*policy(actor, obs, options), noise)
  return min_over_first(q_values(critic, obs, action)) - temperature * log_prob


class ActorLoss(NamedTuple):
  """The loss and the entropy estimate that the temperature learns from, both []."""

  loss: jax.Array
  entropy: jax.Array


def actor_loss(
  actor: MLP,
  critic: MLP,
  temperature: jax.Array,
  obs: jax.Array,
  noise: jax.Array,
  options: SACOptions,
) -> ActorLoss:
  """`E[alpha log pi - min_c Q_c]` (eq. 9); differentiate by `actor` alone.

  Args:
    actor: parameters.
    critic: leaves [C, ...]; the gradient passes it by the action only.
    temperature: alpha, [].
    obs: [B, ds].
    noise: standard Normal, [B, da].
    options: hyperparameters.
  """
  action, log_prob = sample_action(*policy(actor, obs, options), noise)
  value = min_over_first(q_values(critic, obs, action))
  return ActorLoss(jnp.mean(temperature * log_prob - value), -jnp.mean(log_prob))


def temperature_loss(
  log_temperature: jax.Array, entropy: jax.Array, target_entropy: float
) -> jax.Array:
  """`alpha (H - H_target)`, H stopped (eq. 18): alpha falls while H is too high."""
  excess = jax.lax.stop_gradient(entropy) - target_entropy
  return jnp.exp(log_temperature) * excess
