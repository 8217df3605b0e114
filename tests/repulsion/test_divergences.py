"""Divergences against float64 NumPy, closed forms, and finite differences."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.repulsion import divergences, gaussian
from rlfb_jax.repulsion.gaussian import Gaussian

NUM_STATES, D, CLASSES = 4, 7, 3


def _random_law(rng: np.random.Generator, d: int) -> tuple[np.ndarray, np.ndarray]:
  x = rng.normal(size=(4 * d, d)) @ rng.normal(size=(d, d)) / np.sqrt(d)
  return rng.normal(size=d) * 0.5, x.T @ x / len(x) + 0.1 * np.eye(d)


def _laws(seed: int = 0) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
  rng = np.random.default_rng(seed)
  return [_random_law(rng, D) for _ in range(CLASSES)], rng.normal(size=(40, D))


def _classes(laws: list[tuple[np.ndarray, np.ndarray]]) -> Gaussian:
  return Gaussian(
    jnp.asarray(np.stack([m for m, _ in laws])),
    jnp.asarray(np.stack([np.linalg.cholesky(s) for _, s in laws])),
  )


def _numpy_kl(
  mean_p: np.ndarray, cov_p: np.ndarray, mean_q: np.ndarray, cov_q: np.ndarray
) -> float:
  shift = mean_q - mean_p
  value = np.trace(np.linalg.solve(cov_q, cov_p)) - len(shift)
  value += shift @ np.linalg.solve(cov_q, shift)
  value += np.linalg.slogdet(cov_q)[1] - np.linalg.slogdet(cov_p)[1]
  return float(value / 2)


def _numpy_bhattacharyya(
  mean_p: np.ndarray, cov_p: np.ndarray, mean_q: np.ndarray, cov_q: np.ndarray
) -> float:
  shift, middle = mean_q - mean_p, (cov_p + cov_q) / 2
  logs = [np.linalg.slogdet(c)[1] for c in (middle, cov_p, cov_q)]
  value = shift @ np.linalg.solve(middle, shift) / 8
  return float(value + (logs[0] - (logs[1] + logs[2]) / 2) / 2)


def _numpy_reverse(
  mean_p: np.ndarray, cov_p: np.ndarray, mean_q: np.ndarray, cov_q: np.ndarray
) -> float:
  return _numpy_kl(mean_q, cov_q, mean_p, cov_p)


REFERENCES: dict[str, Callable[..., float]] = {
  'forward': _numpy_kl,
  'reverse': _numpy_reverse,
  'bhattacharyya': _numpy_bhattacharyya,
}


@pytest.mark.parametrize('direction', sorted(REFERENCES))
def test_value_and_chain_rule(direction: str) -> None:
  """Joint and state-marginal values, each computed apart; in float32."""
  laws, _ = _laws()
  mean, cov = _random_law(np.random.default_rng(9), D)
  classes = jax.tree.map(jnp.float32, _classes(laws))
  function = jax.jit(divergences.DIVERGENCES[direction], static_argnums=3)
  parts = function(classes, jnp.float32(mean), jnp.float32(cov), NUM_STATES)
  s = slice(0, NUM_STATES)
  for i, (m, c) in enumerate(laws):
    joint = REFERENCES[direction](m, c, mean, cov)
    state = REFERENCES[direction](m[s], c[s, s], mean[s], cov[s, s])
    np.testing.assert_allclose(parts.state[i], state, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(parts.action[i], joint - state, rtol=1e-4, atol=1e-5)


def test_one_dimension_matches_the_textbook() -> None:
  mean_p, sd_p, mean_q, sd_q = 0.3, 0.5, -0.4, 1.7
  textbook = np.log(sd_q / sd_p) - 0.5
  textbook += (sd_p**2 + (mean_p - mean_q) ** 2) / (2 * sd_q**2)
  classes = Gaussian(jnp.array([[mean_p]]), jnp.array([[[sd_p]]]))
  parts = divergences.forward_kl(
    classes, jnp.array([mean_q]), jnp.array([[sd_q**2]]), 0
  )
  np.testing.assert_allclose(parts.action, [textbook], rtol=1e-5)
  np.testing.assert_array_equal(parts.state, [0.0])


@pytest.mark.parametrize('direction', sorted(REFERENCES))
def test_zero_with_zero_gradient_at_equal_laws(direction: str) -> None:
  """Not d/2, as the printed formula without `-d` would give."""
  laws, _ = _laws()
  classes = jax.tree.map(jnp.float32, _classes(laws[:1]))
  mean, cov = jnp.float32(laws[0][0]), jnp.float32(laws[0][1])

  def joint(mean: jax.Array, cov: jax.Array) -> jax.Array:
    parts = divergences.DIVERGENCES[direction](classes, mean, cov, NUM_STATES)
    return jnp.sum(parts.state + parts.action)

  value, slopes = jax.jit(jax.value_and_grad(joint, (0, 1)))(mean, cov)
  np.testing.assert_allclose(value, 0, atol=2e-5)
  for slope in slopes:
    np.testing.assert_allclose(slope, np.zeros_like(slope), atol=2e-4)


def _central_difference(
  function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, direction: np.ndarray
) -> np.ndarray:
  eps = 1e-5
  return (function(x + eps * direction) - function(x - eps * direction)) / (2 * eps)


@pytest.mark.parametrize('direction', sorted(REFERENCES))
def test_gradient_by_samples_matches_finite_differences(direction: str) -> None:
  """d/dx_b through moments, shrinkage and factor, all in float64, against NumPy."""
  laws, x = _laws(1)
  alpha, jitter, of = 0.1, 1e-6, REFERENCES[direction]

  def reference(x: np.ndarray) -> np.ndarray:
    mean, centred = x.mean(0), x - x.mean(0)
    cov = (1 - alpha) * centred.T @ centred / len(x) + (alpha + jitter) * np.eye(D)
    s = slice(0, NUM_STATES)
    state = np.array([of(m[s], c[s, s], mean[s], cov[s, s]) for m, c in laws])
    joint = np.array([of(m, c, mean, cov) for m, c in laws])
    return np.concatenate([state, joint - state])

  with jax.enable_x64(True):
    classes = _classes(laws)

    def ours(x: jax.Array) -> jax.Array:
      mean, cov = gaussian.weighted_moments(x, jnp.ones(len(x)))
      cov = gaussian.shrink(cov, alpha, jitter)
      parts = divergences.DIVERGENCES[direction](classes, mean, cov, NUM_STATES)
      return jnp.concatenate(parts)

    @jax.jit
    def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
      value, pull_back = jax.vjp(ours, x)
      return value, jax.vmap(pull_back)(jnp.eye(len(value)))[0]

    value, jacobian = jax.tree.map(np.asarray, both(jnp.asarray(x)))
  np.testing.assert_allclose(value, reference(x), rtol=1e-9)
  step = np.random.default_rng(2).normal(size=x.shape)
  expected = _central_difference(reference, x, step)
  np.testing.assert_allclose((jacobian * step).sum((1, 2)), expected, rtol=1e-7)


def test_closed_form_gradient_equals_autodiff() -> None:
  """Any mixture of parts and classes, through a vmap over seeds, in float32."""
  laws, _ = _laws(3)
  classes = jax.tree.map(jnp.float32, _classes(laws))
  rng = np.random.default_rng(4)
  moments = [_random_law(rng, D) for _ in range(2)]
  mean = jnp.float32(np.stack([m for m, _ in moments]))
  cov = jnp.float32(np.stack([c for _, c in moments]))
  mix = jnp.float32(rng.normal(size=(2, CLASSES)))

  def slopes(function: divergences.Divergence) -> tuple[jax.Array, jax.Array]:
    def loss(mean: jax.Array, cov: jax.Array) -> jax.Array:
      parts = function(classes, mean, cov, NUM_STATES)
      return jnp.sum(mix[0] * parts.state + mix[1] * jnp.sin(parts.action))

    return jax.jit(jax.vmap(jax.grad(loss, (0, 1))))(mean, cov)

  fast = slopes(divergences.forward_kl)
  slow = slopes(divergences.forward_kl_by_autodiff)
  np.testing.assert_allclose(fast[0], slow[0], rtol=2e-3, atol=2e-4)
  np.testing.assert_allclose(fast[1], slow[1], rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize('direction', ['forward', 'reverse', 'bhattacharyya'])
def test_influence_is_the_derivative_by_weight_and_has_mean_zero(
  direction: str,
) -> None:
  """`dD/drho_b = psi(x_b) / sum(rho)`, by finite differences in float64."""
  laws, x = _laws(5)
  alpha = 0.1
  rho = np.random.default_rng(6).uniform(0.5, 2, len(x))

  with jax.enable_x64(True):
    classes = _classes(laws[:1])

    def of_moments(mean: jax.Array, cov: jax.Array) -> jax.Array:
      parts = divergences.DIVERGENCES[direction](classes, mean, cov, NUM_STATES)
      return divergences.distance(parts, direction, 'conditional')[0]

    @jax.jit
    def of_weights(rho: jax.Array) -> jax.Array:
      mean, cov = gaussian.weighted_moments(jnp.asarray(x), rho)
      return of_moments(mean, gaussian.shrink(cov, alpha, 0.0))

    @jax.jit
    def influence(rho: jax.Array) -> jax.Array:
      mean, cov = gaussian.weighted_moments(jnp.asarray(x), rho)
      slopes = jax.grad(of_moments, (0, 1))(mean, gaussian.shrink(cov, alpha, 0.0))
      return gaussian.influence(jnp.asarray(x), mean, cov, *slopes, alpha)

    psi = np.asarray(influence(jnp.asarray(rho)))
    eps = 1e-6
    for b in (0, 17):
      step = eps * np.eye(len(x))[b]
      up, down = (
        of_weights(jnp.asarray(rho + step)),
        of_weights(jnp.asarray(rho - step)),
      )
      np.testing.assert_allclose(
        psi[b] / rho.sum(), (up - down) / (2 * eps), rtol=1e-6, atol=1e-12
      )
  assert abs((rho * psi).sum()) < 1e-10 * np.abs(rho * psi).sum()


@pytest.mark.parametrize('direction', sorted(REFERENCES))
def test_a_covariance_that_cannot_be_factorised_gives_zero_gradient(
  direction: str,
) -> None:
  laws, _ = _laws()
  classes = jax.tree.map(jnp.float32, _classes(laws))

  def loss(mean: jax.Array, cov: jax.Array) -> jax.Array:
    u = divergences.DIVERGENCES[direction](classes, mean, cov, NUM_STATES).action
    return jnp.sum(jnp.where(jnp.isfinite(u), u, 0))

  value, slopes = jax.jit(jax.value_and_grad(loss, (0, 1)))(jnp.zeros(D), -jnp.eye(D))
  assert value == 0
  for slope in slopes:
    np.testing.assert_array_equal(slope, np.zeros_like(slope))
