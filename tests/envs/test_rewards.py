"""The tolerance function against dm_control's, its gradients and its refusals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from suite_reference import dm_control_module

from rlfb_jax.envs.rewards import tolerance

INF = float('inf')
INTERVALS = [(0.0, 0.0), (1.2, INF), (-INF, -0.3), (-0.25, 0.25)]


@pytest.mark.parametrize(
  ('sigmoid', 'value_at_margin'),
  [
    ('gaussian', 0.1),
    ('gaussian', 0.7),
    ('linear', 0.0),
    ('linear', 0.5),
    ('quadratic', 0.0),
    ('quadratic', 0.3),
  ],
)
@pytest.mark.parametrize('bounds', INTERVALS)
@pytest.mark.parametrize('margin', [0.0, 0.6, 10.0])
def test_matches_dm_control_on_a_grid(sigmoid, value_at_margin, bounds, margin):
  reference = dm_control_module('utils.rewards').tolerance
  ends = [end for end in bounds if math.isfinite(end)]
  x = np.sort(np.concatenate([np.linspace(-25, 25, 801), np.float32(ends)]))
  x = x.astype(np.float32)
  bounds = tuple(float(np.float32(end)) for end in bounds)
  args = (bounds, margin, sigmoid, value_at_margin)
  expected = reference(x.astype(np.float64), *args)
  ours = tolerance(jnp.asarray(x), *args)
  assert ours.dtype == jnp.float32
  np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize('sigmoid', ['gaussian', 'linear', 'quadratic'])
def test_gradient_is_finite_and_matches_differences(sigmoid):
  def value(x):
    return tolerance(x, (1.0, INF), 2.0, sigmoid, 0.5)

  x = jnp.array([-30.0, -1.5, 0.0, 0.9, 1.0, 1.1, 40.0])
  gradient = jax.vmap(jax.grad(value))(x)
  assert np.isfinite(gradient).all()
  smooth = np.array([0, 1, 2, 3, 5, 6])  # At the bound the slope jumps.
  step = 1e-2
  difference = (value(x + step) - value(x - step)) / (2 * step)
  np.testing.assert_allclose(gradient[smooth], difference[smooth], atol=3e-4)


def test_not_a_number_stays_visible():
  assert np.isnan(tolerance(jnp.array(jnp.nan), (1.0, INF), 1.0, 'linear', 0.0))


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'bounds': (1.0, 0.0)}, 'ordered'),
    ({'margin': -1.0}, 'at least 0'),
    ({'sigmoid': 'step'}, 'not one of gaussian, linear, quadratic'),
    ({'value_at_margin': 0.0}, 'greater than 0'),
    ({'value_at_margin': 1.0, 'sigmoid': 'linear'}, 'at least 0 and less than 1'),
  ],
)
def test_refuses_bad_arguments(arguments, message):
  with pytest.raises(ValueError, match=message):
    tolerance(jnp.zeros(3), **arguments)
