"""Critics of actions: C networks that share nothing, leaves [C, ...]."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from rlfb_jax.core.networks import MLP, apply_mlp, orthogonal_mlp
from rlfb_jax.core.types import Key


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
