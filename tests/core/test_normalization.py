"""Running statistics against NumPy on the concatenated data."""

import jax
import jax.numpy as jnp
import numpy as np

from rlfb_jax.core import normalization


def test_merged_batches_equal_one_pass_in_float64():
  rng = np.random.default_rng(0)
  batches = [rng.normal(3.0, 5.0, size=(n, 4, 2)) for n in (1, 7, 100)]
  stats = normalization.init_statistics(2)
  for batch in batches:
    stats = jax.jit(normalization.update_statistics)(stats, jnp.asarray(batch))
  rows = np.concatenate([b.reshape(-1, 2) for b in batches])
  np.testing.assert_allclose(stats.mean, rows.mean(0), rtol=1e-5)
  np.testing.assert_allclose(stats.std, rows.std(0), rtol=1e-4)
  assert float(stats.count) == len(rows)


def test_before_any_data_the_map_is_nearly_the_identity_and_clips():
  stats = normalization.init_statistics(2)
  out = normalization.normalize(stats, jnp.asarray([[0.5, 100.0]]), clip=10.0)
  np.testing.assert_allclose(out, [[0.5, 10.0]], rtol=1e-3)


def test_a_non_finite_row_is_left_out():
  rows = jnp.asarray([[1.0, 2.0], [jnp.nan, 0.0], [3.0, 4.0]])
  stats = normalization.update_statistics(normalization.init_statistics(2), rows)
  np.testing.assert_allclose(stats.mean, [2.0, 3.0])
  assert float(stats.count) == 2.0
