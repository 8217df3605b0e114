"""The actor of SAC: a squashed Normal whose mean and spread both see the state."""

import jax
import jax.numpy as jnp

from rlfb_jax.agents.sac.config import SACOptions
from rlfb_jax.core import distributions
from rlfb_jax.core.networks import MLP, apply_mlp, orthogonal_mlp
from rlfb_jax.core.types import Key


def init_actor(
  key: Key, observation_size: int, action_size: int, options: SACOptions
) -> MLP:
  """One head of 2 da numbers; orthogonal weights of gain 1 throughout."""
  hidden = [options.hidden_size] * options.hidden_layers
  return orthogonal_mlp(key, [observation_size, *hidden, 2 * action_size], 1.0, 1.0)


def policy(
  actor: MLP, obs: jax.Array, options: SACOptions
) -> tuple[jax.Array, jax.Array]:
  """Mean and log standard deviation before the squash.

  Args:
    actor: parameters.
    obs: raw, [..., ds].
    options: whose range the log standard deviation is squeezed into by tanh.

  Returns:
    Both [..., da].
  """
  mean, raw = jnp.split(apply_mlp(actor, obs, jax.nn.relu), 2, axis=-1)
  low, high = options.min_log_std, options.max_log_std
  return mean, low + 0.5 * (high - low) * (jnp.tanh(raw) + 1.0)


def sample_action(
  mean: jax.Array, log_std: jax.Array, noise: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """A reparameterised action and its log-density.

  Nothing is recovered from the action or from the difference to the mean, so that
  saturated actions and tiny spreads lose no digits.

  Args:
    mean: before the squash, [..., da].
    log_std: [..., da].
    noise: standard Normal, [..., da].

  Returns:
    Action [..., da] in [-1, 1] and its log-density in the box, [...], in nats.
  """
  pre_tanh = mean + jnp.exp(log_std) * noise
  normal = distributions.log_prob(noise, jnp.zeros_like(noise), jnp.zeros_like(noise))
  log_prob = normal - jnp.sum(log_std, axis=-1)
  return jnp.tanh(pre_tanh), log_prob - distributions.squash_log_det(pre_tanh)
