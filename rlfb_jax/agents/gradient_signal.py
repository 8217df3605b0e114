"""How long the gradient would be without the noise of its minibatches.

A term that always pushes the same way must not be measured against one noisy
gradient: noise cancels from step to step, the push adds up. Let g be the mean of the
RL gradients and t the term's gradient. A step along -(g + t) still improves the RL
objective to first order if |t| < |g|, by at least the share 1 - |t| / |g| of what the
RL step alone would. So |g| is what a budget has to be counted in.
"""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from rlfb_jax.core.types import Params


class GradientSignal(flax.struct.PyTreeNode):
  """Exponential sums over the gradients seen; see `signal_norm`.

  Attributes:
    total: sum of w_t g_t, like the gradients.
    total_square: sum of |w_t g_t|^2, [].
    weight: sum of w_t, [].
    weight_square: sum of w_t^2, [].
  """

  total: Params
  total_square: jax.Array
  weight: jax.Array
  weight_square: jax.Array


def init_signal(params: Params) -> GradientSignal:
  """Nothing seen yet.

  Args:
    params: what the gradients will be of.
  """
  zero = jnp.zeros((), jnp.float32)
  return GradientSignal(jax.tree.map(jnp.zeros_like, params), zero, zero, zero)


def update_signal(
  signal: GradientSignal, gradient: Params, horizon: int
) -> GradientSignal:
  """Takes one more gradient in; one that is not finite is passed over.

  Args:
    signal: of the gradients before.
    gradient: of one minibatch.
    horizon: gradients that the average reaches back, at least 2: the weight of an
      older one falls by 1 - 1/horizon with each step.
  """
  keep = 1.0 - 1.0 / max(horizon, 2)
  new = 1.0 - keep
  square = optax.tree.norm(gradient, squared=True)
  updated = GradientSignal(
    jax.tree.map(lambda t, g: keep * t + new * g, signal.total, gradient),
    keep**2 * signal.total_square + new**2 * square,
    keep * signal.weight + new,
    keep**2 * signal.weight_square + new**2,
  )
  finite = jnp.isfinite(square)
  return jax.tree.map(lambda u, s: jnp.where(finite, u, s), updated, signal)


def signal_norm(signal: GradientSignal) -> jax.Array:
  """Norm of the gradients' common mean g, in their unit, [].

  The average of noisy gradients is longer than g: its square holds g_t with itself,
  noise included. Products of different gradients have the mean |g|^2 if their noise
  is independent, so that only they are counted:
  `(|sum w g|^2 - sum |w g|^2) / ((sum w)^2 - sum w^2)`. (McCandlish et al. 2018,
  appendix A.1, do the same with two batch sizes.) Minibatches of one epoch are drawn
  without replacement, and their noise cancels faster than independent noise would:
  the estimate then errs on the short side.

  Returns:
    The root of the estimate; 0 where noise explains everything, and before the
    second gradient.
  """
  products = optax.tree.norm(signal.total, squared=True) - signal.total_square
  weights = jnp.square(signal.weight) - signal.weight_square
  # Of a single gradient only rounding is left.
  known = weights > 1e-6 * jnp.square(signal.weight)
  square = jnp.where(known, products, 0.0) / jnp.where(known, weights, 1.0)
  return jnp.sqrt(jnp.maximum(square, 0.0))
