"""The actor of DDPG: a deterministic action, and how it explores around it."""

import jax
import jax.numpy as jnp

from rlfb_jax.agents.ddpg.config import DDPGOptions
from rlfb_jax.core.config import log
from rlfb_jax.core.networks import MLP, apply_mlp, orthogonal_mlp
from rlfb_jax.core.types import Key

# Lillicrap et al. draw last layers from U(-3e-3, 3e-3) on 300 inputs, so that actions
# and values start near zero; columns of an orthogonal matrix of this gain are as long.
LAST_GAIN = 0.03


def init_actor(
  key: Key, observation_size: int, action_size: int, options: DDPGOptions
) -> MLP:
  """Orthogonal weights of gain 1, `LAST_GAIN` on top; zero biases."""
  hidden = [options.hidden_size] * options.hidden_layers
  return orthogonal_mlp(key, [observation_size, *hidden, action_size], 1.0, LAST_GAIN)


def act_greedily(actor: MLP, obs: jax.Array) -> jax.Array:
  """`mu(s)`, [..., da] in [-1, 1], of raw observations [..., ds]."""
  return jnp.tanh(apply_mlp(actor, obs, jax.nn.relu))


def policy(
  actor: MLP, obs: jax.Array, options: DDPGOptions
) -> tuple[jax.Array, jax.Array]:
  """Mean and log standard deviation before the squash.

  Exploration is a Normal *inside* the tanh, not noise clipped to the box: the law that
  acts is then the very one that entropies and repulsion are computed from, it has a
  density everywhere, and its spread near zero is that of plain action noise.

  Args:
    actor: parameters.
    obs: raw, [..., ds].
    options: with the standard deviation.

  Returns:
    Both [..., da].
  """
  mean = apply_mlp(actor, obs, jax.nn.relu)
  return mean, jnp.full(mean.shape, log(options.exploration_std), mean.dtype)
