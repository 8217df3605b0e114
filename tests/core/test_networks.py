"""Initialisation and evaluation of multi-layer perceptrons."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.core import networks


@pytest.mark.parametrize('shape', [(24, 256), (256, 256), (256, 6), (3, 3)])
def test_orthogonal_matrices_are_orthogonal(shape):
  matrix = np.asarray(networks.orthogonal(jax.random.key(0), *shape), np.float64)
  gram = matrix.T @ matrix if shape[0] >= shape[1] else matrix @ matrix.T
  np.testing.assert_allclose(gram, np.eye(min(shape)), atol=2e-6)


def test_orthogonal_matrices_favour_no_direction():
  """Entries of a Haar matrix have mean 0 and variance 1/n; so has the diagonal."""
  keys = jax.random.split(jax.random.key(1), 4000)
  draws = jax.jit(jax.vmap(lambda k: networks.orthogonal(k, 4, 4)))(keys)
  np.testing.assert_allclose(draws.mean(0), 0.0, atol=0.04)
  np.testing.assert_allclose(jnp.square(draws).mean(0), 0.25, atol=0.02)
  determinants = np.linalg.det(np.asarray(draws, np.float64))
  assert abs((determinants > 0).mean() - 0.5) < 0.04


def test_gains_and_zero_biases():
  sizes = (5, 8, 2)
  mlp = networks.orthogonal_mlp(jax.random.key(2), sizes, hidden=2.0, last=0.01)
  assert [layer.kernel.shape for layer in mlp] == [(5, 8), (8, 2)]
  np.testing.assert_allclose(jnp.linalg.norm(mlp[0].kernel, axis=1), 2.0, rtol=1e-5)
  np.testing.assert_allclose(jnp.linalg.norm(mlp[1].kernel, axis=0), 0.01, rtol=1e-5)
  assert all(not layer.bias.any() for layer in mlp)


def test_apply_matches_numpy():
  mlp = networks.orthogonal_mlp(jax.random.key(3), (3, 4, 2), hidden=1.0, last=1.0)
  x = np.random.default_rng(0).normal(size=(7, 3))
  (k0, b0), (k1, b1) = [[np.asarray(a, np.float64) for a in layer] for layer in mlp]
  want = np.tanh(x @ k0 + b0) @ k1 + b1
  got = networks.apply_mlp(mlp, jnp.asarray(x), jnp.tanh)
  np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize('outputs', [4, 3, 1])  # More than inputs, as many, fewer.
def test_product_has_the_gradients_of_a_matrix_product(outputs):
  rng = np.random.default_rng(1)
  x, kernel = rng.normal(size=(2, 5, 3)), rng.normal(size=(3, outputs))
  weights = rng.normal(size=(2, 5, outputs))

  def loss(x, kernel):
    return jnp.sum(networks.product(x, kernel) * weights)

  got = jax.grad(loss, argnums=(0, 1))(jnp.asarray(x), jnp.asarray(kernel))
  np.testing.assert_allclose(got[0], weights @ kernel.T, atol=1e-5)
  want = np.einsum('bti,bto->io', x, weights)
  np.testing.assert_allclose(got[1], want, atol=1e-5)


def test_many_seeds_of_agents_are_made_without_a_hang():
  """Batched QR factorisations of one program have blocked each other for ever."""
  code = (
    'import rlfb_jax, jax\n'
    'from rlfb_jax.agents import ppo\n'
    'init = lambda k: ppo.init_state(k, 24, 6, ppo.PPOOptions())\n'
    'keys = jax.random.split(jax.random.key(0), 10)\n'
    'f = jax.jit(jax.vmap(init)).lower(keys)\n'
    'assert "lapack" not in f.as_text()\n'
    'jax.block_until_ready(f.compile()(keys))\n'
  )
  done = subprocess.run([sys.executable, '-c', code], timeout=240, check=False)
  assert done.returncode == 0
