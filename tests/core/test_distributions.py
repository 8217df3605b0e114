"""Densities of the squashed Normal against SciPy and numerical integration."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from rlfb_jax.core import distributions


def test_log_prob_matches_scipy():
  rng = np.random.default_rng(0)
  u, mean, log_std = rng.normal(size=(3, 5, 2))
  want = stats.norm.logpdf(u, mean, np.exp(log_std)).sum(-1)
  got = distributions.log_prob(*[jnp.asarray(x) for x in (u, mean, log_std)])
  np.testing.assert_allclose(got, want, rtol=1e-4)


def test_the_squashed_density_integrates_to_one():
  actions = np.linspace(-1 + 1e-6, 1 - 1e-6, 200_001)
  u = jnp.asarray(np.arctanh(actions))[:, None]
  log_p = distributions.log_prob(u, jnp.float32(0.3), jnp.float32(-0.5))
  density = jnp.exp(log_p - distributions.squash_log_det(u))
  total = np.trapezoid(np.asarray(density, np.float64), actions)
  np.testing.assert_allclose(total, 1.0, atol=1e-3)


def test_entropy_matches_scipy_and_samples_have_the_law():
  log_std = jnp.asarray([0.0, -1.0])
  want = stats.norm.entropy(scale=np.exp([0.0, -1.0])).sum()
  np.testing.assert_allclose(distributions.normal_entropy(log_std), want, rtol=1e-6)
  draws = distributions.sample(jax.random.key(0), jnp.ones((20_000, 2)), log_std)
  np.testing.assert_allclose(draws.mean(0), 1.0, atol=0.03)
  np.testing.assert_allclose(draws.std(0), np.exp([0.0, -1.0]), rtol=0.03)
