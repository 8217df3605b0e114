"""The vector whose law is Gaussian: one step's whitened state and scaled action."""

import flax.struct
import jax
import jax.numpy as jnp

STATE_CLIP = 5.0
ACTION_STD_FLOOR = 0.1
# A dimension that never moved in the rated data must not explode when it does.
STATE_STD_FLOOR = 1e-3


class Whitening(flax.struct.PyTreeNode):
  """Frozen scales of the rated data; refreshed only when ratings arrive.

  Attributes:
    obs_mean: [ds].
    obs_std: [ds], floored.
    action_std: [da], floored at 0.1.
  """

  obs_mean: jax.Array
  obs_std: jax.Array
  action_std: jax.Array


def identity_whitening(observation_size: int, action_size: int) -> Whitening:
  """Changes nothing (but for the clip)."""
  return Whitening(
    jnp.zeros(observation_size), jnp.ones(observation_size), jnp.ones(action_size)
  )


def fit_whitening(obs: jax.Array, action: jax.Array, weight: jax.Array) -> Whitening:
  """Pooled scales over all usable rated steps of all classes.

  Args:
    obs: raw observations, [C, H, ds], finite.
    action: executed actions, [C, H, da], finite.
    weight: 1 for usable clips and 0 for others, [C].
  """
  count = jnp.maximum(jnp.sum(weight) * obs.shape[1], 1)
  w = weight[:, None, None]

  def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean = jnp.sum(w * x, axis=(0, 1)) / count
    return mean, jnp.sqrt(jnp.sum(w * (x - mean) ** 2, axis=(0, 1)) / count)

  obs_mean, obs_std = moments(obs)
  _, action_std = moments(action)
  return Whitening(
    obs_mean=obs_mean,
    obs_std=jnp.maximum(obs_std, STATE_STD_FLOOR),
    action_std=jnp.maximum(action_std, ACTION_STD_FLOOR),
  )


def whiten_state(whitening: Whitening, obs: jax.Array) -> jax.Array:
  """`clip((s - mean) / std, -5, 5)`, [..., ds]."""
  z = (obs - whitening.obs_mean) / whitening.obs_std
  return jnp.clip(z, -STATE_CLIP, STATE_CLIP)


def features(whitening: Whitening, obs: jax.Array, action: jax.Array) -> jax.Array:
  """`[s~; a~]`, [..., d]. States are data: no gradient passes through them.

  Args:
    whitening: frozen scales.
    obs: raw observations, [..., ds].
    action: as executed (after tanh or clipping), [..., da].
  """
  state = jax.lax.stop_gradient(whiten_state(whitening, obs))
  return jnp.concatenate([state, action / whitening.action_std], axis=-1)
