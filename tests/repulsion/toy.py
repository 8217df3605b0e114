"""A toy in which repulsion can be watched: linear policies, Gaussian states.

`a = tanh(K s + sigma eps)` with three states and one action; the bad class acts by
K_0, and the policy starts 5 % away from it.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rlfb_jax.repulsion import (
  PolicyBatch,
  RepulsionOptions,
  class_statistics,
  make_repulsion,
)
from rlfb_jax.repulsion.records import ClassStatistics
from rlfb_jax.repulsion.term import Repulsion

BAD_GAIN = np.array([0.8, -0.4, 0.2], np.float32)
LOG_STD = -0.7
NUM_STATES, NUM_ACTIONS, BATCH = 3, 1, 512
Params = dict[str, jax.Array]


def policy(params: Params, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
  return obs @ params['gain'], params['log_std']


def start() -> Params:
  gain = jnp.asarray(BAD_GAIN)[:, None] * 1.05
  return {'gain': gain, 'log_std': jnp.full(NUM_ACTIONS, LOG_STD)}


def clips(
  key: jax.Array, num: int = 400, steps: int = 10, gain: np.ndarray = BAD_GAIN
) -> tuple[jax.Array, jax.Array]:
  """Observations [C, H, 3] and executed actions [C, H, 1] of one behaviour."""
  state_key, noise_key = jax.random.split(key)
  obs = jax.random.normal(state_key, (num, steps, NUM_STATES))
  noise = jax.random.normal(noise_key, (num, steps, 1))
  raw = obs @ jnp.asarray(gain)[:, None] + np.exp(LOG_STD) * noise
  return obs, jnp.tanh(raw)


@functools.lru_cache
def _statistics(options: RepulsionOptions) -> ClassStatistics:
  obs, action = clips(jax.random.key(1))
  good_obs, good_action = clips(jax.random.key(2), num=100, gain=-BAD_GAIN)
  rating = jnp.repeat(jnp.array([0, 1]), np.array([400, 100]))
  fit = jax.jit(class_statistics.fit, static_argnums=(0, 1))
  return fit(
    options,
    2,
    jax.random.key(3),
    jnp.concatenate([obs, good_obs]),
    jnp.concatenate([action, good_action]),
    rating,
    jnp.ones(500, bool),
  )


def two_class_setup(options: RepulsionOptions) -> tuple[Repulsion, ClassStatistics]:
  """Two classes, of which only the bad one, with K_0, repels."""
  repulsion = make_repulsion(options, policy, 2, NUM_STATES, NUM_ACTIONS)
  # Only what the fit reads, so that few variants are compiled.
  heads = options.kl_mode.startswith('heads')
  fitted_by = RepulsionOptions(
    kl_mode=options.kl_mode if heads else 'pathwise',
    kl_batch=options.kl_batch if heads else BATCH,
    shrinkage=options.shrinkage,
    jitter=options.jitter,
    statistics_steps=options.statistics_steps,
    head_states=options.head_states,
  )
  return repulsion, _statistics(fitted_by)


def ascend(
  options: RepulsionOptions,
  num_steps: int,
  step_size: float,
  sign: float = 1.0,
) -> tuple[Params, dict[str, np.ndarray]]:
  """Follows the repulsion loss alone, by normalised gradient steps.

  Returns:
    Last parameters, and by step: KL of actions given states, log-std, saturation.
  """
  repulsion, stats = two_class_setup(options)
  assert repulsion.term is not None
  loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]] = repulsion.term

  def step(params: Params, key: jax.Array) -> tuple[Params, dict[str, jax.Array]]:
    state_key, noise_key = jax.random.split(key)
    batch = PolicyBatch(obs=jax.random.normal(state_key, (BATCH, NUM_STATES)))
    grads = jax.grad(lambda p: loss(p, stats, batch, noise_key)[0])(params)
    norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
    params = jax.tree.map(
      lambda p, g: p - sign * step_size * g / jnp.maximum(norm, 1e-12), params, grads
    )
    seen = repulsion.diagnose(params, stats, batch, noise_key)
    return params, {
      'kl': seen['kl/action'][0],
      'log_std': params['log_std'][0],
      'saturation': seen['policy/saturation'],
      'entropy': seen['policy/entropy'],
    }

  keys = jax.random.split(jax.random.key(7), num_steps)
  params, seen = jax.jit(lambda p: jax.lax.scan(step, p, keys))(start())
  return params, jax.tree.map(np.asarray, seen)
