"""What scripted teachers of pairs and scripted raters have in common."""

import jax
import jax.numpy as jnp

from rlfb_jax.core.config import is_traced


def beneath_notice(returns: jax.Array, least: jax.Array) -> jax.Array:
  """Whether a scripted teacher gives no answer: returns of at most `least`.

  Where average behaviour earns nothing, nothing is beneath notice.

  Args:
    returns: plain, [B].
    least: the threshold, a share of `mean_segment_return`, [].
  """
  return (least > 0) & (returns <= least)


def myopic_return(
  env_rewards: jax.Array, gamma: float | jax.Array, normalise: bool = False
) -> jax.Array:
  """What a teacher sees who forgets, [B, H] -> [B].

  B-Pref's `get_label` weighs step j by gamma^(H-1-j): the last step counts whole.

  Args:
    env_rewards: true rewards.
    gamma: in (0, 1].
    normalise: scale the weights to sum to H, so that a constant reward is worth the
      same at every gamma.
  """
  if not is_traced(gamma) and gamma == 1.0:
    return jnp.sum(env_rewards, axis=-1)
  horizon = env_rewards.shape[-1]
  weights = gamma ** jnp.arange(horizon - 1, -1, -1, dtype=jnp.float32)
  if normalise:
    weights = weights * (horizon / jnp.sum(weights))
  # No product of matrices: accelerators round its factors.
  return jnp.sum(env_rewards * weights, axis=-1)
