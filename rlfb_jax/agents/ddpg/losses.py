"""DDPG's losses, as functions of parameters and batches (Lillicrap et al. 2016)."""

import jax
import jax.numpy as jnp

from rlfb_jax.agents.critics import q_values
from rlfb_jax.agents.ddpg.networks import act_greedily
from rlfb_jax.core.networks import MLP
from rlfb_jax.core.types import Metrics

# Values smaller than this on average are as good as zero.
_SMALLEST_SCALE = 1e-6


def next_values(actor: MLP, critic: MLP, next_obs: jax.Array) -> jax.Array:
  """`Q'(s', mu'(s'))`, [B], by the target networks."""
  return q_values(critic, next_obs, act_greedily(actor, next_obs))[0]


def critic_loss(
  critic: MLP, obs: jax.Array, action: jax.Array, targets: jax.Array
) -> tuple[jax.Array, Metrics]:
  """`mean (Q - y)^2`.

  Args:
    critic: leaves [1, ...].
    obs: [B, ds].
    action: as executed, [B, da].
    targets: y, [B]; no gradient passes them.
  """
  values = q_values(critic, obs, action)[0]
  errors = values - jax.lax.stop_gradient(targets)
  loss = jnp.mean(jnp.square(errors))
  return loss, {'q_mean': jnp.mean(values), 'td_error': jnp.mean(jnp.abs(errors))}


def actor_loss(
  actor: MLP, critic: MLP, obs: jax.Array, scale_by_value: bool
) -> jax.Array:
  """`-E[Q(s, mu(s))]`, over `mean |Q|` where asked; differentiate by `actor` alone.

  Args:
    actor: parameters.
    critic: leaves [1, ...]; the gradient passes it by the action only.
    obs: [B, ds].
    scale_by_value: divide by the mean magnitude of the values, itself held fixed
      (Fujimoto & Gu 2021, eq. 5).
  """
  values = q_values(critic, obs, act_greedily(actor, obs))[0]
  loss = -jnp.mean(values)
  if not scale_by_value:
    return loss
  scale = jax.lax.stop_gradient(jnp.mean(jnp.abs(values)))
  return loss / jnp.maximum(scale, _SMALLEST_SCALE)
