"""How much of an update the repulsion may take."""

import jax
import jax.numpy as jnp
import optax

from rlfb_jax.core.types import Metrics, Params
from rlfb_jax.repulsion.options import RepulsionOptions


def limit_gradient(
  kl_gradient: Params,
  rl_gradient: Params,
  fraction: float,
  signal_norm: jax.Array | None = None,
) -> tuple[Params, Metrics]:
  """Scales the repulsion gradient to at most `fraction` of the RL gradient's norm.

  The RL gradient of a minibatch is mostly noise and cancels over the steps, the
  repulsion does not. Counted in the minibatch's norm even a small budget can exceed
  what the policy consistently learns; counted in `signal_norm` a fraction below 1
  leaves at least the share 1 - fraction of it, to first order and before Adam's
  scaling of the coordinates.

  Args:
    kl_gradient: of the repulsion loss, by the actor's parameters.
    rl_gradient: of the RL loss, by the same parameters.
    fraction: budget, at least 0.
    signal_norm: norm of the RL gradient without noise, []; where None, the norm of
      `rl_gradient` takes its place.

  Returns:
    The limited gradient, zero if a norm is not finite, and metrics:
    `kl/gradient_ratio` (to `rl_gradient`, before the limit), `kl/signal_share` (of
    the norm of `rl_gradient`; 1 without `signal_norm`), `kl/gradient_scale` (what
    the limit left of the repulsion, in [0, 1]) and `kl/gradient_dropped` (1 or 0).
  """
  kl_norm = optax.tree.norm(kl_gradient)
  rl_norm = optax.tree.norm(rl_gradient)
  reference = rl_norm if signal_norm is None else signal_norm
  finite = jnp.isfinite(kl_norm) & jnp.isfinite(rl_norm) & jnp.isfinite(reference)
  positive = jnp.where(kl_norm > 0, kl_norm, 1)
  scale = jnp.where(finite, jnp.minimum(1, fraction * reference / positive), 0)
  limited = jax.tree.map(lambda g: jnp.where(finite, scale * g, 0), kl_gradient)
  divisor = jnp.where(rl_norm > 0, rl_norm, 1)
  return limited, {
    'kl/gradient_ratio': jnp.where(finite, kl_norm / divisor, 0),
    'kl/signal_share': jnp.where(finite, reference / divisor, 0),
    'kl/gradient_scale': scale,
    'kl/gradient_dropped': 1 - finite.astype(jnp.float32),
  }


def join_gradients(
  rl_gradient: Params,
  kl_gradient: Params,
  options: RepulsionOptions,
  strength: jax.Array,
  signal_norm: jax.Array | None,
) -> tuple[Params, Metrics]:
  """The RL gradient with what the budget leaves of the repulsion's added to it.

  Args:
    rl_gradient: of the RL loss, by the actor's parameters.
    kl_gradient: of the repulsion loss, by the same parameters.
    options: the budget, and what it is a share of.
    strength: factor of the push, [] in [0, 1].
    signal_norm: see `limit_gradient`.

  Returns:
    The sum, and the metrics of `limit_gradient`.
  """
  if options.gradient_budget_reference == 'minibatch':
    signal_norm = None
  limited, metrics = limit_gradient(
    kl_gradient, rl_gradient, options.gradient_budget, signal_norm
  )
  # After the limit: before it, the budget would make up for what has faded.
  joined = jax.tree.map(lambda a, b: a + strength * b, rl_gradient, limited)
  return joined, metrics


def fade(saturation: jax.Array, limit: float) -> jax.Array:
  """Strength that is left to the push, `max(0, 1 - saturation / limit)`, [].

  Once the bad behaviour is left, the far end of the box is the only direction in
  which distance still grows, and actions pinned there neither explore nor come back.
  The push gives way in proportion, long before the abort rule has to speak.

  Args:
    saturation: share of saturated actions, [].
    limit: share at which nothing is left, above 0.
  """
  return jnp.where(saturation < limit, 1.0 - saturation / limit, 0.0)
