import jax
import jax.numpy as jnp
import numpy as np

from rlfb_jax.core.padding import Padded, capacity, fill, number


def test_a_plain_count_pads_nothing():
  values = jnp.arange(3)
  assert fill(3, values, jnp.nan) is values
  assert number(3) == capacity(3) == 3


def test_each_run_has_its_own_number_of_entries():
  def run(n):
    count = Padded(n, 4)
    assert capacity(count) == 4
    values = jnp.arange(4)
    return (
      fill(count, values, jnp.nan),
      fill(count - 1, values[:3] > 0, False),
      number(count - 1),
    )

  filled, flags, less = jax.jit(jax.vmap(run))(jnp.array([2, 4]))
  np.testing.assert_array_equal(filled, [[0, 1, np.nan, np.nan], [0, 1, 2, 3]])
  assert filled.dtype == jnp.float32
  np.testing.assert_array_equal(flags, [[False] * 3, [False, True, True]])
  np.testing.assert_array_equal(less, [1, 3])
