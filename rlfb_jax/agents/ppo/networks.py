"""Actor and critic of PPO: two networks that share nothing."""

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.agents.ppo.config import PPOOptions
from rlfb_jax.core import extrema
from rlfb_jax.core.networks import MLP, Layer, apply_mlp, orthogonal_mlp
from rlfb_jax.core.normalization import RunningStatistics, normalize
from rlfb_jax.core.types import Key

_SQRT2 = 2.0**0.5


class ActorParams(flax.struct.PyTreeNode):
  """A tanh-squashed Normal.

  The published code explores with state-dependent noise that it re-draws every
  four steps (gSDE); a learned log standard deviation per action replaces it, to which
  the network may add what depends on the observation. Its noise may be held, too
  (`noise_steps`).

  Attributes:
    mlp: observation to mean before the squash, [..., da], and where the spread depends
      on the observation, to what is added to `log_std`, [..., 2 da].
    log_std: [da].
  """

  mlp: MLP
  log_std: jax.Array


class PPOParams(flax.struct.PyTreeNode):
  """What the optimiser moves."""

  actor: ActorParams
  critic: MLP


def init_params(
  key: Key, observation_size: int, action_size: int, options: PPOOptions
) -> PPOParams:
  """Orthogonal initialisation: gain sqrt 2 hidden, 0.01 policy, 1 value."""
  actor_key, critic_key = jax.random.split(key)
  hidden = [options.hidden_size] * options.hidden_layers
  outputs = (2 if options.state_dependent_std else 1) * action_size
  return PPOParams(
    actor=ActorParams(
      mlp=orthogonal_mlp(actor_key, [observation_size, *hidden, outputs], _SQRT2, 0.01),
      log_std=jnp.full(action_size, options.initial_log_std, jnp.float32),
    ),
    critic=orthogonal_mlp(critic_key, [observation_size, *hidden, 1], _SQRT2, 1.0),
  )


def reset_value_head(key: Key, params: PPOParams) -> PPOParams:
  """Draws the critic's last layer again (after unsupervised pre-training)."""
  last = params.critic[-1]
  (fresh,) = orthogonal_mlp(key, last.kernel.shape, _SQRT2, 1.0)
  return params.replace(critic=(*params.critic[:-1], fresh))


def policy(
  actor: ActorParams,
  statistics: RunningStatistics,
  observation: jax.Array,
  options: PPOOptions,
) -> tuple[jax.Array, jax.Array]:
  """Mean and log standard deviation before the squash.

  Args:
    actor: parameters.
    statistics: of raw observations.
    observation: raw, [..., ds].

  Returns:
    Mean [..., da] and log standard deviation, broadcast to the same shape.
  """
  inputs = normalize(statistics, observation, options.observation_clip)
  return policy_from_inputs(actor, inputs, options)


def policy_from_inputs(
  actor: ActorParams, inputs: jax.Array, options: PPOOptions
) -> tuple[jax.Array, jax.Array]:
  """As `policy`, for observations that are whitened already."""
  mean, log_std = apply_mlp(actor.mlp, inputs, jnp.tanh), actor.log_std
  if options.state_dependent_std:
    mean, offset = jnp.split(mean, 2, axis=-1)
    log_std = log_std + offset
  bounded = extrema.clip(log_std, options.min_log_std, options.max_log_std)
  if options.state_dependent_std:
    # `hold_spread` cannot take what a network says back to its bounds. A gradient that
    # passes them does.
    bounded = log_std + jax.lax.stop_gradient(bounded - log_std)
  return mean, jnp.broadcast_to(bounded, mean.shape)


def hold_spread(params: PPOParams, options: PPOOptions) -> PPOParams:
  """Takes the learned log standard deviation back to its bounds.

  Beyond them the clip has no gradient: a step too far would freeze it for ever. What
  the network adds where the spread depends on the observation is not held.
  """
  log_std = jnp.clip(params.actor.log_std, options.min_log_std, options.max_log_std)
  return params.replace(actor=params.actor.replace(log_std=log_std))


def mean_network(actor: ActorParams) -> MLP:
  """The layers that give the mean alone, for all seeds: leaves [..., in, out]."""
  size = actor.log_std.shape[-1]
  last = actor.mlp[-1]
  last = Layer(last.kernel[..., :size], last.bias[..., :size])
  return (*actor.mlp[:-1], last)


def value(critic: MLP, inputs: jax.Array) -> jax.Array:
  """State values [...] of whitened observations [..., ds]."""
  return apply_mlp(critic, inputs, jnp.tanh)[..., 0]
