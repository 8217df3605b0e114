"""A diagonal Normal squashed by tanh, the policy of every agent here.

Densities are kept in the space before the squash: the Jacobian of tanh does not
depend on the parameters, so that it cancels in likelihood ratios and in KL
divergences, and no arctanh of a saturated action is ever needed.
"""

import math

import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key

_LOG_2PI = math.log(2 * math.pi)


def sample(key: Key, mean: jax.Array, log_std: jax.Array) -> jax.Array:
  """Draws pre-squash actions, shape of `mean`."""
  return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)


def log_prob(pre_tanh: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
  """Log-density of pre-squash actions [..., da] in nats, summed over da: [...]."""
  z = (pre_tanh - mean) * jnp.exp(-log_std)
  return jnp.sum(-0.5 * jnp.square(z) - log_std - 0.5 * _LOG_2PI, axis=-1)


def squash_log_det(pre_tanh: jax.Array) -> jax.Array:
  """log |d tanh(u)/du| summed over da, [...]; subtract it for action densities."""
  softplus = jax.nn.softplus(-2.0 * pre_tanh)
  return jnp.sum(2.0 * (math.log(2.0) - pre_tanh - softplus), axis=-1)


def normal_entropy(log_std: jax.Array) -> jax.Array:
  """Entropy in nats before the squash, summed over the last axis."""
  return jnp.sum(log_std + 0.5 * (1.0 + _LOG_2PI), axis=-1)
