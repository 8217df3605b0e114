"""Plain-XLA Cholesky and triangular solves against LAPACK in float64."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.core import linalg

pytestmark = pytest.mark.optimised


def _spd(rng: np.random.Generator, batch: tuple[int, ...], d: int) -> np.ndarray:
  x = rng.normal(size=(*batch, 3 * d + 2, d))
  return np.swapaxes(x, -1, -2) @ x / x.shape[-2] + 0.1 * np.eye(d)


@pytest.mark.parametrize('d', [1, 5, 16, 33, 90])
def test_factor_and_solve_match_lapack(d: int) -> None:
  rng = np.random.default_rng(d)
  a, b = _spd(rng, (3,), d), rng.normal(size=(3, d, 7))
  chol, solved = jax.jit(linalg.cholesky_solve)(jnp.float32(a), jnp.float32(b))
  expected = np.linalg.cholesky(a)
  assert chol.dtype == jnp.float32
  np.testing.assert_allclose(chol, expected, atol=2e-6)
  np.testing.assert_allclose(solved, np.linalg.solve(expected, b), atol=2e-5)
  again = jax.jit(linalg.solve_lower)(jnp.float32(expected), jnp.float32(b))
  np.testing.assert_allclose(again, np.linalg.solve(expected, b), atol=2e-5)
  np.testing.assert_array_equal(chol, np.tril(chol))


def test_derivatives_in_both_modes_match_finite_differences() -> None:
  d = 19  # Crosses a block edge.
  rng = np.random.default_rng(0)
  with jax.enable_x64(True):
    a, b = jnp.asarray(_spd(rng, (), d)), jnp.asarray(rng.normal(size=(d, 3)))
    readout = jnp.asarray(rng.normal(size=(d, 3)))

    def scalar(a: jax.Array, b: jax.Array) -> jax.Array:
      chol = linalg.cholesky(a)
      solved = linalg.solve_lower(chol, b)
      log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(chol)))
      return jnp.sum(jnp.sin(solved) * readout) + log_det

    da = rng.normal(size=(d, d))
    da, db = jnp.asarray(da + da.T), jnp.asarray(rng.normal(size=(d, 3)))
    eps = 1e-6
    central = scalar(a + eps * da, b + eps * db) - scalar(a - eps * da, b - eps * db)
    central = central / (2 * eps)
    _, forward = jax.jvp(scalar, (a, b), (da, db))
    ga, gb = jax.jit(jax.grad(scalar, (0, 1)))(a, b)
    backward = jnp.sum(ga * da) + jnp.sum(gb * db)
  np.testing.assert_allclose(forward, central, rtol=1e-7)
  np.testing.assert_allclose(backward, central, rtol=1e-7)


def test_vmap_equals_batch_axis_and_broadcasts() -> None:
  rng = np.random.default_rng(1)
  a = jnp.float32(_spd(rng, (4, 2), 18))
  b = jnp.float32(rng.normal(size=(2, 18, 3)))
  chol = linalg.cholesky(a)
  mapped = jax.vmap(jax.vmap(linalg.cholesky))(a)
  np.testing.assert_allclose(chol, mapped, atol=1e-6)
  np.testing.assert_allclose(
    linalg.solve_lower(chol, b)[3, 1], linalg.solve_lower(chol[3, 1], b[1]), atol=1e-5
  )


def test_an_indefinite_matrix_gives_nan_and_harms_no_neighbour() -> None:
  a = jnp.stack([jnp.eye(20), -jnp.eye(20), 2 * jnp.eye(20)])
  chol = linalg.cholesky(a)
  assert jnp.isnan(chol[1]).any()
  np.testing.assert_allclose(chol[2], np.sqrt(2) * np.eye(20), rtol=1e-6)


def test_independent_factorisations_in_one_program_finish() -> None:
  """jaxlib's own Cholesky can hang here on two cores; a process can be timed out."""
  program = """
import jax, jax.numpy as jnp
from rlfb_jax.core import linalg
x = jax.random.normal(jax.random.key(0), (2, 256, 44, 22))
a, b = jnp.einsum('kbij,kbil->kbjl', x, x) / 44
both = jax.jit(lambda a, b: linalg.cholesky(a).sum() + linalg.cholesky(b).sum())
assert 'custom-call' not in both.lower(a, b).compile().as_text()
for _ in range(20):
  both(a, b).block_until_ready()
print('finished')
"""
  done = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, timeout=120
  )
  assert done.stdout.strip() == 'finished', done.stderr
