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
    pass_weight: sum of w_t in the current pass over the data, [].
    passes_square: sum of the squares of that sum in the passes before, [].
  """

  total: Params
  total_square: jax.Array
  weight: jax.Array
  weight_square: jax.Array
  pass_weight: jax.Array
  passes_square: jax.Array


def init_signal(params: Params) -> GradientSignal:
  """Nothing seen yet.

  Args:
    params: what the gradients will be of.
  """
  zero = jnp.zeros((), jnp.float32)
  return GradientSignal(jax.tree.map(jnp.zeros_like, params), *[zero] * 5)


def next_pass(signal: GradientSignal) -> GradientSignal:
  """The gradients from here on are of a new pass over the same data."""
  return signal.replace(
    pass_weight=jnp.zeros_like(signal.pass_weight),
    passes_square=signal.passes_square + jnp.square(signal.pass_weight),
  )


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
    keep * signal.pass_weight + new,
    keep**2 * signal.passes_square,
  )
  finite = jnp.isfinite(square)
  return jax.tree.map(lambda u, s: jnp.where(finite, u, s), updated, signal)


def signal_norm(signal: GradientSignal, minibatches: int | None = None) -> jax.Array:
  """Norm of the gradients' common mean g, in their unit, [].

  The average of noisy gradients is longer than g: with noise of variance s^2,

    E |sum w g|^2 = (sum w)^2 |g|^2 + c s^2
    E  sum |w g|^2 = (sum w^2) (|g|^2 + s^2)

  two equations for |g|^2. Independent noise has c = sum w^2. Minibatches that share
  out one pass over the data cancel each other's noise: any two of m have the
  covariance -s^2 / (m - 1), so that c = (m sum w^2 - sum_p W_p^2) / (m - 1) with W_p
  the weight of pass p. Over equal weights and one whole pass c is 0: the mean is g
  itself. (McCandlish et al. 2018, appendix A.1, solve the same equations for two
  batch sizes.)

  Args:
    signal: of the gradients so far.
    minibatches: m, of a pass, whose beginnings `next_pass` has told; None where each
      minibatch is drawn by itself.

  Returns:
    The root of the estimate; 0 where noise explains everything, and before the
    second gradient.
  """
  total = optax.tree.norm(signal.total, squared=True)
  noise_weight = signal.weight_square
  if minibatches is not None:
    passes = signal.passes_square + jnp.square(signal.pass_weight)
    cancelled = minibatches * signal.weight_square - passes
    noise_weight = jnp.maximum(cancelled, 0.0) / max(minibatches - 1, 1)
  weights = jnp.square(signal.weight) - noise_weight
  # Of a single gradient only rounding is left.
  known = weights > 1e-6 * jnp.square(signal.weight)
  share = noise_weight / jnp.where(known, signal.weight_square, 1.0)
  products = total - share * signal.total_square
  square = jnp.where(known, products, 0.0) / jnp.where(known, weights, 1.0)
  return jnp.sqrt(jnp.maximum(square, 0.0))
