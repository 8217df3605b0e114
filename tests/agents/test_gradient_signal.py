"""The norm of a mean gradient, free of its minibatches' noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.agents.gradient_signal import init_signal, signal_norm, update_signal

HORIZON = 8


@jax.jit
def norms(gradients):
  """Estimates after each of the gradients [T, d]."""

  def step(signal, gradient):
    signal = update_signal(signal, {'w': gradient}, HORIZON)
    return signal, signal_norm(signal)

  start = init_signal({'w': gradients[0]})
  return jax.lax.scan(step, start, gradients)[1]


def reference(gradients):
  """Explicit weights in float64: no recursion, no shared expressions."""
  results = []
  for end in range(1, len(gradients) + 1):
    seen = np.asarray(gradients[:end], np.float64)
    weights = (1 - 1 / HORIZON) ** np.arange(end - 1, -1, -1.0)
    weights /= weights.sum()
    # Products of different gradients alone: noise is independent between them.
    pairs = np.outer(weights, weights) * (1 - np.eye(end))
    products = (pairs * (seen @ seen.T)).sum()
    squared = products / pairs.sum() if end > 1 else 0.0
    results.append(np.sqrt(max(squared, 0.0)))
  return np.array(results)


def test_it_is_the_mean_product_of_different_gradients():
  gradients = 0.3 + np.random.default_rng(0).normal(size=(30, 40))
  estimate = norms(jnp.float32(gradients))
  assert estimate[0] == 0.0
  np.testing.assert_allclose(estimate, reference(gradients), rtol=1e-3, atol=1e-3)


def test_noise_is_taken_out_of_the_norm():
  rng = np.random.default_rng(1)
  truth = rng.normal(size=4000) / np.sqrt(4000)  # Norm 1, noise of norm 5.
  gradients = truth + 5 * rng.normal(size=(60, 4000)) / np.sqrt(4000)
  estimate = norms(jnp.float32(gradients))[40:]
  assert np.mean(estimate) == pytest.approx(np.linalg.norm(truth), rel=0.1)
  weights = (1 - 1 / HORIZON) ** np.arange(60)[::-1]
  naive = np.linalg.norm(weights @ gradients / weights.sum())
  assert naive > 1.4


def test_without_noise_it_is_the_norm_and_without_signal_almost_nothing():
  same = jnp.broadcast_to(jnp.array([3.0, 4.0]), (20, 2))
  np.testing.assert_allclose(norms(same)[1:], 5.0, rtol=1e-3)
  noise = jax.random.normal(jax.random.key(0), (60, 4000))
  assert norms(noise)[-20:].max() < 0.25 * np.sqrt(4000)


def test_a_gradient_that_is_not_finite_is_passed_over():
  gradients = np.random.default_rng(2).normal(size=(6, 3)) + 1
  broken = np.insert(gradients, 3, np.nan, axis=0)
  clean, dirty = norms(jnp.float32(gradients)), norms(jnp.float32(broken))
  np.testing.assert_array_equal(clean, np.delete(dirty, 3))
