"""How much of an update the repulsion may take."""

import jax
import jax.numpy as jnp
import optax

from rlfb_jax.core.types import Metrics, Params


def limit_gradient(
  kl_gradient: Params, rl_gradient: Params, fraction: float
) -> tuple[Params, Metrics]:
  """Scales the repulsion gradient to at most `fraction` of the RL gradient's norm.

  Args:
    kl_gradient: of the repulsion loss, by the actor's parameters.
    rl_gradient: of the RL loss, by the same parameters.
    fraction: budget, at least 0.

  Returns:
    The limited gradient, zero if either norm is not finite, and metrics
    `kl/gradient_ratio` (before the limit) and `kl/gradient_dropped` (1 or 0).
  """
  kl_norm = optax.tree.norm(kl_gradient)
  rl_norm = optax.tree.norm(rl_gradient)
  finite = jnp.isfinite(kl_norm) & jnp.isfinite(rl_norm)
  positive = jnp.where(kl_norm > 0, kl_norm, 1)
  scale = jnp.where(finite, jnp.minimum(1, fraction * rl_norm / positive), 0)
  limited = jax.tree.map(lambda g: jnp.where(finite, scale * g, 0), kl_gradient)
  ratio = kl_norm / jnp.where(rl_norm > 0, rl_norm, 1)
  return limited, {
    'kl/gradient_ratio': jnp.where(finite, ratio, 0),
    'kl/gradient_dropped': 1 - finite.astype(jnp.float32),
  }
