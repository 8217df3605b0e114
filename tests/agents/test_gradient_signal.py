"""The norm of a mean gradient, free of its minibatches' noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.agents.gradient_signal import (
  init_signal,
  next_pass,
  signal_norm,
  update_signal,
)

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


def passes(rows, minibatches, count, rng):
  """Minibatch means of `count` passes over rows [R, d], each shuffled anew."""
  for _ in range(count):
    shuffled = rows[rng.permutation(len(rows))]
    yield from shuffled.reshape(minibatches, -1, rows.shape[1]).mean(axis=1)


def norms_of_passes(gradients, minibatches):
  """Estimates after each of the gradients [T, d] of whole passes."""

  def step(signal, gradient):
    signal = update_signal(signal, {'w': gradient}, minibatches)
    return signal, signal_norm(signal, minibatches)

  def one_pass(signal, gradients):
    return jax.lax.scan(step, next_pass(signal), gradients)

  start = init_signal({'w': gradients[0]})
  by_pass = gradients.reshape(-1, minibatches, gradients.shape[-1])
  return jax.lax.scan(one_pass, start, by_pass)[1].reshape(-1)


@pytest.mark.parametrize('minibatches', [1, 4, 10])
def test_it_solves_the_two_equations_of_passes(minibatches):
  gradients = 0.3 + np.random.default_rng(0).normal(size=(20, 40))
  horizon, found = (
    max(minibatches, 2),
    norms_of_passes(jnp.float32(gradients), minibatches),
  )
  for end in range(1, 21):
    seen = gradients[:end]
    w = (1 - 1 / horizon) ** np.arange(end - 1, -1, -1.0)
    w /= w.sum()
    # How the noise of two minibatches hangs together, in units of its variance.
    same = np.equal.outer(*[np.arange(end) // minibatches] * 2)
    covariance = np.where(same, -1 / max(minibatches - 1, 1), 0.0)
    np.fill_diagonal(covariance, 1.0)
    if minibatches == 1:
      covariance[:] = 0  # A whole pass has no noise.
    noise_weight = w @ covariance @ w
    matrix = [[1.0, noise_weight], [(w * w).sum(), (w * w).sum()]]
    sums = [(w @ seen) @ (w @ seen), (w * w) @ (seen * seen).sum(axis=1)]
    if end == 1 and minibatches > 1:
      assert found[0] == 0
      continue
    truth = np.linalg.solve(matrix, sums)[0] if minibatches > 1 else sums[0]
    expected = np.sqrt(max(truth, 0))
    assert found[end - 1] == pytest.approx(expected, rel=1e-3, abs=2e-3), end


@pytest.mark.parametrize(('minibatches', 'share'), [(8, 0.15), (8, 0.3), (125, 0.1)])
def test_minibatches_of_a_pass_cancel_their_noise(minibatches, share):
  """`share` is |g| over the noise of a minibatch, as small as PPO meets it."""
  rng = np.random.default_rng(3)
  size, dims = 16, 500
  rows = rng.normal(size=(minibatches * size, dims)) * np.sqrt(size / dims)
  rows -= rows.mean(axis=0)
  rows += share * rng.normal(size=dims) / np.sqrt(dims)
  truth = np.linalg.norm(rows.mean(axis=0))
  gradients = jnp.float32(np.stack(list(passes(rows, minibatches, 12, rng))))
  estimate = norms_of_passes(gradients, minibatches)[-8 * minibatches :]
  assert np.sqrt(np.mean(np.square(estimate))) == pytest.approx(truth, rel=0.1)
  if minibatches == HORIZON:  # Taken for independent, noise explains away most of it.
    assert np.mean(norms(gradients)[-8 * minibatches :]) < 0.85 * truth
