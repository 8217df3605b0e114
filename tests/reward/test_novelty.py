"""The state-entropy reward of replayed batches against a NumPy reference."""

import jax
import jax.numpy as jnp
import numpy as np

from rlfb_jax.reward.novelty import init_novelty, novelty_reward


def kth_distance(obs, seen, k):
  distances = np.linalg.norm(obs[:, None] - seen[None], axis=-1)
  return np.sort(distances, axis=1)[:, k]


def test_a_batch_inside_the_buffer_uses_the_sixth_smallest_distance():
  rng = np.random.default_rng(0)
  seen = rng.normal(size=(200, 3)).astype(np.float32)
  filled = 150
  obs = seen[rng.integers(0, filled, 32)]
  distances = kth_distance(obs.astype(np.float64), seen[:filled].astype(np.float64), 5)
  state, reward = jax.jit(novelty_reward, static_argnums=4)(
    init_novelty(), jnp.asarray(obs), jnp.asarray(seen), jnp.int32(filled), 5
  )
  np.testing.assert_allclose(reward, distances / distances.std(), rtol=2e-4)
  # The scale remembers: a second batch is divided by the deviation of both.
  other = seen[rng.integers(0, filled, 32)]
  more = kth_distance(other.astype(np.float64), seen[:filled].astype(np.float64), 5)
  _, reward = novelty_reward(
    state, jnp.asarray(other), jnp.asarray(seen), jnp.int32(filled), 5
  )
  both = np.concatenate([distances, more]).std()
  np.testing.assert_allclose(reward, more / both, rtol=2e-4)


def test_rows_that_are_not_filled_are_nobody():
  seen = jnp.zeros((100, 2)).at[:10, 0].set(jnp.arange(10.0))
  _, reward = novelty_reward(init_novelty(), seen[:2], seen, jnp.int32(10), 1)
  # All distances are 1: nothing to scale by. Unfilled rows at 0 would give 0.
  np.testing.assert_allclose(reward, 1.0, atol=1e-5)
