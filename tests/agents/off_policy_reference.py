"""Losses, gradients and steps of SAC and DDPG in float64 NumPy, by another road.

Gradients are central differences of the losses below, so that nothing of JAX's
automatic differentiation, nor of our arithmetic, is used twice.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rlfb_jax.agents.off_policy import Transitions

BATCH, STATES, ACTIONS = 12, 3, 2
RNG = np.random.default_rng(0)


def to_numpy(tree):
  return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def random_batch(seed=0):
  rng = np.random.default_rng(seed)
  f32 = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
  ends = rng.random((2, BATCH)) < 0.3
  return Transitions(
    obs=f32(BATCH, STATES),
    action=jnp.tanh(f32(BATCH, ACTIONS)),
    next_obs=f32(BATCH, STATES),
    terminated=jnp.asarray(ends[0]),
    truncated=jnp.asarray(ends[1] & ~ends[0]),
  )


def perturbed(tree, seed, scale=0.3):
  """Away from initialisation, where biases are zero and targets equal critics."""
  leaves, structure = jax.tree.flatten(tree)
  rng = np.random.default_rng(seed)
  return jax.tree.unflatten(
    structure,
    [x + jnp.asarray(scale * rng.normal(size=x.shape), x.dtype) for x in leaves],
  )


def mlp(params, inputs):
  for kernel, bias in params[:-1]:
    inputs = np.maximum(inputs @ kernel + bias, 0.0)
  kernel, bias = params[-1]
  return inputs @ kernel + bias


def q(critic, obs, action):
  """[C, B]."""
  inputs = np.concatenate([obs, action], axis=1)
  number = critic[0][1].shape[0]
  return np.stack(
    [mlp([(k[c], b[c]) for k, b in critic], inputs)[:, 0] for c in range(number)]
  )


def sac_action(actor, obs, noise, low=-5.0, high=2.0):
  mean, raw = np.split(mlp(actor, obs), 2, axis=1)
  std = np.exp(low + 0.5 * (high - low) * (np.tanh(raw) + 1.0))
  action = np.tanh(mean + std * noise)
  normal = -0.5 * noise**2 - np.log(std) - 0.5 * np.log(2 * np.pi)
  return action, (normal - np.log(1.0 - action**2)).sum(1)


def finite_differences(loss, params, step=1e-6):
  """Central differences of `loss(params)` by every number in the pytree."""
  leaves, structure = jax.tree.flatten(params)
  grads = []
  for i, leaf in enumerate(leaves):
    grad = np.zeros_like(leaf)
    for index in np.ndindex(leaf.shape):
      ends = []
      for sign in (1.0, -1.0):
        moved = leaf.copy()
        moved[index] += sign * step
        ends.append(loss(structure.unflatten([*leaves[:i], moved, *leaves[i + 1 :]])))
      grad[index] = (ends[0] - ends[1]) / (2 * step)
    grads.append(grad)
  return structure.unflatten(grads)


def first_adam_step(params, grads, learning_rate, epsilon=1e-8):
  """From zero moments the bias-corrected mean is g, the square g^2."""
  return jax.tree.map(
    lambda p, g: p - learning_rate * g / (np.abs(g) + epsilon), params, grads
  )


def targets(rewards, values, batch, discount):
  return rewards + discount * np.where(np.asarray(batch.terminated), 0.0, values)


def assert_steps_close(got, want, before, learning_rate):
  """Compares steps, not parameters, wherever the gradient is not nearly zero."""
  for g, w, b in zip(*[jax.tree.leaves(t) for t in (got, want, before)], strict=True):
    clear = np.abs(np.abs(w - b) - learning_rate) < 1e-3 * learning_rate
    assert clear.mean() > 0.5 or clear.size < 4
    step = np.asarray(g, np.float64) - b
    np.testing.assert_allclose(step[clear], (w - b)[clear], atol=0.02 * learning_rate)
    assert np.abs(step).max() <= 1.02 * learning_rate
