"""PPO's arithmetic against float64 NumPy and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.agents.ppo import losses


def _reference_gae(
  rewards, values, next_values, terminated, truncated, g, lam, terminal=False
):
  steps, envs = rewards.shape
  advantages = np.zeros((steps, envs))
  for n in range(envs):
    running = 0.0
    for t in reversed(range(steps)):
      ended = terminated[t, n] or (terminal and truncated[t, n])
      bootstrap = 0.0 if ended else g * next_values[t, n]
      delta = rewards[t, n] + bootstrap - values[t, n]
      if terminated[t, n] or truncated[t, n]:
        running = 0.0
      running = delta + g * lam * running
      advantages[t, n] = running
  return advantages


@pytest.fixture
def rollout():
  rng = np.random.default_rng(0)
  shape = (40, 3)
  rewards, values, next_values = rng.normal(size=(3, *shape))
  terminated = rng.random(shape) < 0.1
  truncated = (rng.random(shape) < 0.1) & ~terminated
  return rewards, values, next_values, terminated, truncated


@pytest.mark.parametrize('terminal', [False, True])
def test_advantages_match_a_loop(rollout, terminal):
  got, targets = losses.generalized_advantages(
    *[jnp.asarray(x) for x in rollout], 0.97, 0.9, stop_at_time_limit=terminal
  )
  want = _reference_gae(*rollout, 0.97, 0.9, terminal)
  np.testing.assert_allclose(got, want, atol=2e-5)
  np.testing.assert_allclose(targets, want + rollout[1], atol=2e-5)


def test_lambda_one_gives_the_discounted_return():
  rewards = np.random.default_rng(1).normal(size=(12, 1))
  zeros = np.zeros((12, 1))
  ends = zeros.astype(bool)
  ends[-1] = True
  got, _ = losses.generalized_advantages(
    *[jnp.asarray(x) for x in (rewards, zeros, zeros, ends, zeros.astype(bool))],
    0.9,
    1.0,
  )
  want = sum(0.9**t * rewards[t, 0] for t in range(12))
  np.testing.assert_allclose(got[0, 0], want, rtol=1e-5)


def test_time_limit_bootstraps_and_an_end_does_not():
  one, no, yes = jnp.ones((1, 1)), jnp.zeros((1, 1), bool), jnp.ones((1, 1), bool)
  value = 10.0 * one
  cut, _ = losses.generalized_advantages(one, 0 * one, value, no, yes, 0.5, 0.9)
  end, _ = losses.generalized_advantages(one, 0 * one, value, yes, no, 0.5, 0.9)
  assert float(cut[0, 0]) == pytest.approx(6.0)
  assert float(end[0, 0]) == pytest.approx(1.0)


def test_surrogate_matches_numpy_and_its_gradient_stops_at_the_clip():
  rng = np.random.default_rng(2)
  new, old, adv = rng.normal(scale=0.5, size=(3, 64))
  ratio = np.exp(new - old)
  want = -np.minimum(ratio * adv, np.clip(ratio, 0.8, 1.2) * adv).mean()
  got = losses.clipped_surrogate(*[jnp.asarray(x) for x in (new, old, adv)], 0.2)
  np.testing.assert_allclose(got.loss, want, rtol=1e-5)
  np.testing.assert_allclose(got.clip_fraction, (abs(ratio - 1) > 0.2).mean())
  assert float(got.approx_kl) >= 0.0
  grads = jax.grad(
    lambda x: losses.clipped_surrogate(x, jnp.asarray(old), jnp.asarray(adv), 0.2).loss
  )(jnp.asarray(new))
  held = ((ratio > 1.2) & (adv > 0)) | ((ratio < 0.8) & (adv < 0))
  assert held.any()
  np.testing.assert_array_equal(np.asarray(grads)[held], 0.0)
  step = 1e-6
  free = int(np.flatnonzero(~held)[0])

  def loss(x):
    r = np.exp(x - old)
    return -np.minimum(r * adv, np.clip(r, 0.8, 1.2) * adv).mean()

  bump = np.eye(64)[free] * step
  want_grad = (loss(new + bump) - loss(new - bump)) / (2 * step)
  np.testing.assert_allclose(grads[free], want_grad, rtol=1e-4)


def test_standardize_and_explained_variance():
  x = jnp.asarray([1.0, 2.0, 3.0, 6.0])
  z = np.asarray(losses.standardize(x))
  assert abs(z.mean()) < 1e-6
  assert z.std() == pytest.approx(1.0, abs=1e-5)
  assert float(losses.explained_variance(x, x)) == pytest.approx(1.0)
  assert float(losses.explained_variance(0 * x, x)) == pytest.approx(0.0, abs=1e-6)
