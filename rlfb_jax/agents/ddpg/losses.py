"""DDPG's losses, as functions of parameters and batches (Lillicrap et al. 2016)."""

import jax
import jax.numpy as jnp

from rlfb_jax.agents.critics import q_values
from rlfb_jax.agents.ddpg.networks import act_greedily
from rlfb_jax.core.networks import MLP

# Values smaller than this on average are as good as zero.
_SMALLEST_SCALE = 1e-6


def next_values(actor: MLP, critic: MLP, next_obs: jax.Array) -> jax.Array:
  """`Q'(s', mu'(s'))`, [B], by the target networks."""
  return q_values(critic, next_obs, act_greedily(actor, next_obs))[0]


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
