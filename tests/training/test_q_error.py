"""The error of learned values against Monte-Carlo returns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax import envs
from rlfb_jax.training import q_error


def test_returns_are_those_of_a_loop():
  rng = np.random.default_rng(0)
  rewards = rng.normal(size=(12, 3))
  ends = rng.random((12, 3)) < 0.2
  expected = np.zeros((12, 3))
  for env in range(3):
    for start in range(12):
      weight = 1.0
      for t in range(start, 12):
        expected[start, env] += weight * rewards[t, env]
        weight *= 0.9
        if ends[t, env]:
          break
  found = q_error.discounted_returns(jnp.asarray(rewards), jnp.asarray(ends), 0.9)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_only_steps_with_nearly_all_of_their_return_count():
  assert q_error.steps_with_whole_return(1000, 0.99) == 1000 - 459
  assert 0.99**459 <= q_error.TAIL < 0.99**458
  assert q_error.steps_with_whole_return(10, 0.99) == 5
  assert q_error.steps_with_whole_return(1, 0.0) == 1


def test_a_scale_and_an_offset_of_the_values_do_not_count():
  returns = jax.random.normal(jax.random.key(0), (50, 4))
  same = q_error.q_error(3.0 * returns + 7.0, returns)
  assert float(same.standardised) == pytest.approx(0.0, abs=1e-6)
  assert float(same.correlation) == pytest.approx(1.0, abs=1e-5)
  assert float(same.raw) > 40.0
  opposite = q_error.q_error(-returns, returns)
  assert float(opposite.standardised) == pytest.approx(4.0, abs=1e-4)


def test_true_values_of_a_constant_reward_have_no_raw_error():
  env = envs.make('probe_constant')  # One step, which pays 1, and the end.

  def true_value(critics, obs, action):
    del action
    return jnp.full(obs.shape[:-1], critics)

  def measure(value):
    _, error = q_error.measure_q_error(
      env,
      lambda policy, obs: jnp.zeros((obs.shape[0], env.action_size)),
      true_value,
      None,
      value,
      jax.random.key(0),
      4,
      0.9,
    )
    return error

  assert float(measure(1.0).raw) == pytest.approx(0.0, abs=1e-6)
  assert float(measure(3.0).raw) == pytest.approx(4.0, abs=1e-5)
