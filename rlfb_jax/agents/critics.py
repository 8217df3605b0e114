"""Critics of actions: C networks that share nothing, leaves [C, ...]."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlfb_jax.agents import steps
from rlfb_jax.core.networks import MLP, apply_mlp, orthogonal_mlp
from rlfb_jax.core.types import Key, Metrics


def init_critics(
  key: Key,
  num_critics: int,
  observation_size: int,
  action_size: int,
  hidden: Sequence[int],
  last_gain: float,
) -> MLP:
  """Orthogonal weights, zero biases.

  Args:
    key: randomness, consumed.
    num_critics: C.
    observation_size: ds.
    action_size: da.
    hidden: widths of the hidden layers, whose gain is 1.
    last_gain: gain of the output layer.

  Returns:
    Parameters, leaves [C, ...].
  """
  sizes = [observation_size + action_size, *hidden, 1]
  keys = jax.random.split(key, num_critics)
  return jax.vmap(lambda k: orthogonal_mlp(k, sizes, 1.0, last_gain))(keys)


def q_values(params: MLP, obs: jax.Array, action: jax.Array) -> jax.Array:
  """Each critic's value of each pair.

  Args:
    params: leaves [C, ...].
    obs: [..., ds].
    action: [..., da].

  Returns:
    [C, ...].
  """
  inputs = jnp.concatenate([obs, action], axis=-1)
  return jax.vmap(lambda critic: apply_mlp(critic, inputs, jax.nn.relu)[..., 0])(params)


def critic_loss(
  critic: MLP, obs: jax.Array, action: jax.Array, targets: jax.Array
) -> tuple[jax.Array, Metrics]:
  """`sum_c mean (Q_c - y)^2`, without the half of SAC's eq. 5, as in B-Pref.

  Args:
    critic: leaves [C, ...].
    obs: [B, ds].
    action: as executed, [B, da].
    targets: y, [B]; no gradient passes them.
  """
  values = q_values(critic, obs, action)
  errors = values - jax.lax.stop_gradient(targets)
  loss = jnp.sum(jnp.mean(jnp.square(errors), axis=-1))
  return loss, {'q_mean': jnp.mean(values), 'td_error': jnp.mean(jnp.abs(errors))}


class CriticStep(NamedTuple):
  """What a step of the critics replaces.

  Attributes:
    critic: leaves [C, ...].
    optimizer: Adam's moments.
    skipped: whether the gradient was not finite, [] bool.
    metrics: `critic_loss`, `q_mean` and `td_error` before the step, each [].
  """

  critic: MLP
  optimizer: optax.OptState
  skipped: jax.Array
  metrics: Metrics


def critic_step(
  adam: steps.Adam,
  learning_rate: float,
  state: Any,
  obs: jax.Array,
  action: jax.Array,
  targets: jax.Array,
) -> CriticStep:
  """One step of Adam on `critic_loss`, see `steps.guarded_step`.

  Args:
    adam: its constants.
    learning_rate: step size.
    state: an agent's, with `critic` and `critic_optimizer`.
    obs: [B, ds].
    action: as executed, [B, da].
    targets: y, [B].
  """
  (loss, metrics), grads = jax.value_and_grad(critic_loss, has_aux=True)(
    state.critic, obs, action, targets
  )
  critic, optimizer, skipped = steps.guarded_step(
    adam, learning_rate, state.critic, state.critic_optimizer, grads
  )
  return CriticStep(critic, optimizer, skipped, {**metrics, 'critic_loss': loss})


def with_critic(state: Any, critic: MLP, adam: steps.Adam) -> Any:
  """An agent's state with new critics, equal targets, and moments from the start."""
  return state.replace(
    critic=critic,
    target_critic=jax.tree.map(jnp.copy, critic),
    critic_optimizer=adam.init(critic),
  )
