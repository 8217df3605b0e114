"""What scripted teachers of pairs and scripted raters have in common."""

import jax
import jax.numpy as jnp


def beneath_notice(returns: jax.Array, least: jax.Array) -> jax.Array:
  """Whether a scripted teacher gives no answer: returns of at most `least`.

  Where average behaviour earns nothing, nothing is beneath notice.

  Args:
    returns: plain, [B].
    least: the threshold, a share of `mean_segment_return`, [].
  """
  return (least > 0) & (returns <= least)


def recency_weights(gamma: float | jax.Array, horizon: int) -> jax.Array:
  """How a myopic teacher weighs the steps of a segment, [H].

  B-Pref's `get_label` weighs step j by gamma^(H-1-j): the last step counts whole.

  Args:
    gamma: in (0, 1].
    horizon: H.
  """
  return gamma ** jnp.arange(horizon - 1, -1, -1, dtype=jnp.float32)
