"""Values of NumPy, and gradients that are whole: one operand has all of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.core import extrema

TIES = np.array([[1.0, 2.0, -3.0, 0.5], [1.0, 0.0, -3.0, 4.0]], np.float32)


def test_values_are_numpys():
  x, y = TIES
  np.testing.assert_array_equal(extrema.minimum(x, y), np.minimum(x, y))
  np.testing.assert_array_equal(extrema.min_over_first(TIES), TIES.min(axis=0))
  np.testing.assert_array_equal(extrema.clip(x, -1.0, 1.0), np.clip(x, -1.0, 1.0))
  assert extrema.min_of(x) == x.min()
  assert extrema.max_of(x) == x.max()


def test_one_operand_has_all_of_the_gradient():
  def loss(values):
    return jnp.sum(extrema.min_over_first(values))

  expected = [[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]]
  np.testing.assert_array_equal(jax.grad(loss)(TIES), expected)
  np.testing.assert_array_equal(
    jax.grad(extrema.min_of)(jnp.array([2.0, 1.0, 1.0])), [0.0, 1.0, 0.0]
  )
  np.testing.assert_array_equal(
    jax.grad(extrema.max_of)(jnp.array([2.0, 3.0, 3.0])), [0.0, 1.0, 0.0]
  )
  x = jnp.array([-2.0, -1.0, 0.0, 1.0, 2.0])
  slope = jax.grad(lambda x: jnp.sum(extrema.clip(x, -1.0, 1.0)))(x)
  np.testing.assert_array_equal(slope, [0.0, 1.0, 1.0, 1.0, 0.0])


@pytest.mark.parametrize(
  'function',
  [
    lambda x: jnp.sum(extrema.min_over_first(x)),
    lambda x: extrema.min_of(x[0]) + extrema.max_of(x[1]),
    lambda x: jnp.sum(extrema.clip(x, -1.0, 1.0)),
  ],
)
def test_no_gradient_asks_which_operand_equals_the_result(function):
  # A result compared with an operand that is computed once more, and rounded
  # otherwise, equals none.
  program = str(jax.make_jaxpr(jax.grad(function))(TIES))
  assert ' eq ' not in program
  assert ' div ' not in program
