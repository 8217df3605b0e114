"""What repulsion does when nothing else acts, on a toy with linear policies.

The rows are those of a NumPy study that used the same toy; only orders of magnitude
and signs are compared.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from rlfb_jax.repulsion import PolicyBatch, RepulsionOptions, make_repulsion
from rlfb_jax.repulsion.policy import squashed_log_prob

# Hundreds of steps each, whose end may hang on how programs were compiled.
pytestmark = pytest.mark.optimised


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
  return np.convolve(values, np.ones(width) / width, mode='valid')


def test_repulsion_repels_and_the_printed_sign_attracts() -> None:
  _, seen = toy.ascend(RepulsionOptions(), 200, 0.01)
  start = seen['kl'][:3].mean()
  assert seen['kl'][-5:].mean() > 10 * start
  smooth = _smooth(seen['kl'], 20)
  assert np.diff(smooth).min() > -0.03 * smooth.max()
  np.testing.assert_array_equal(seen['log_std'], np.float32(toy.LOG_STD))

  params, seen = toy.ascend(RepulsionOptions(), 200, 0.01, sign=-1.0)
  assert seen['kl'][-20:].mean() < start
  # It cannot get nearer than the step size allows.
  np.testing.assert_allclose(params['gain'][:, 0], toy.BAD_GAIN, atol=0.06)


def test_defaults_stay_bounded_for_long() -> None:
  params, seen = toy.ascend(RepulsionOptions(), 3000, 0.01)
  assert all(np.isfinite(values).all() for values in seen.values())
  assert 2 < seen['kl'][-1] < 5
  np.testing.assert_array_equal(seen['log_std'], np.float32(toy.LOG_STD))
  gain = np.asarray(params['gain'])[:, 0]
  assert gain @ toy.BAD_GAIN < -0.8  # It does the opposite of the bad class ...
  assert np.abs(gain).max() < 2  # ... and does not run to the walls of the box.
  assert 0.1 < seen['saturation'][-100:].mean() < 0.3


@pytest.mark.parametrize('bound', ['identity', 'logsum'])
def test_the_literal_gradient_collapses_the_entropy(bound: str) -> None:
  """Forward KL to be maximised has no maximum; the log does not help."""
  options = RepulsionOptions(sigma_grad=True, bound=bound, shrinkage=1e-6, jitter=0.0)
  params, seen = toy.ascend(options, 3000, 0.01)
  assert seen['log_std'][-1] < -5
  assert seen['kl'][-1] > 1e4
  assert np.abs(params['gain']).max() < 0.2  # A constant action, nothing avoided.
  assert seen['entropy'][-1] < -3 * toy.NUM_ACTIONS


def test_shrinkage_alone_bounds_the_kl_but_not_the_collapse() -> None:
  options = RepulsionOptions(sigma_grad=True, bound='identity')
  _, seen = toy.ascend(options, 3000, 0.01)
  assert 4 < seen['kl'][-1] < 10
  assert seen['log_std'][-1] < -3


def test_a_fixed_sigma_alone_bounds_the_kl() -> None:
  options = RepulsionOptions(bound='identity', shrinkage=1e-6, jitter=0.0)
  _, seen = toy.ascend(options, 3000, 0.01)
  assert 4 < seen['kl'][-1] < 10
  np.testing.assert_array_equal(seen['log_std'], np.float32(toy.LOG_STD))


@pytest.mark.parametrize('mode', ['heads_gaussian', 'heads_unlikelihood'])
def test_heads_lower_the_likelihood_of_bad_actions(mode: str) -> None:
  params, seen = toy.ascend(RepulsionOptions(kl_mode=mode), 150, 0.01)
  obs, action = toy.clips(jax.random.key(11), num=50)

  @jax.jit
  def likelihood(params: toy.Params) -> jax.Array:
    mean, log_std = toy.policy(params, obs.reshape(-1, 3))
    log_std = jnp.broadcast_to(log_std, mean.shape)
    return jnp.mean(squashed_log_prob(mean, log_std, action.reshape(-1, 1)))

  assert likelihood(params) < likelihood(toy.start()) - 0.3
  np.testing.assert_array_equal(seen['log_std'], np.float32(toy.LOG_STD))


@pytest.mark.parametrize('form', ['objective', 'shaping'])
def test_one_ratio_step_raises_the_divergence(form: str) -> None:
  """Through the loss, and as an advantage in a score-function gradient."""
  options = RepulsionOptions(kl_mode='ratio', ratio_form=form)
  repulsion, stats = toy.two_class_setup(options)
  start, key = toy.start(), jax.random.key(5)
  obs = jax.random.normal(jax.random.key(6), (8192, toy.NUM_STATES))
  mean, log_std = toy.policy(start, obs)
  raw = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)

  def log_prob(params: toy.Params) -> jax.Array:
    mean, log_std = toy.policy(params, obs)
    z = (raw - mean) / jnp.exp(log_std)
    return jnp.sum(-(z**2) / 2 - log_std - np.log(2 * np.pi) / 2, axis=-1)

  batch = PolicyBatch(obs=obs, raw_action=raw, log_prob=log_prob(start))

  def loss(params: toy.Params) -> jax.Array:
    if form == 'objective':
      assert repulsion.term is not None
      return repulsion.term(params, stats, batch, key)[0]
    assert repulsion.shape_advantages is not None
    bonus = repulsion.shape_advantages(stats, obs, jnp.tanh(raw))
    return -jnp.mean(bonus * log_prob(params))

  gradient = jax.jit(jax.grad(loss))(start)['gain']
  step = -0.2 * gradient / jnp.linalg.norm(gradient)
  moved = dict(start, gain=start['gain'] + step)
  diagnose = jax.jit(repulsion.diagnose)
  before = diagnose(start, stats, batch, key)['kl/action'][0]
  after = diagnose(moved, stats, batch, key)['kl/action'][0]
  assert after > 2 * before


def test_state_rows_of_the_feature_gradient_are_zero() -> None:
  """States are data: only through the policy's mean may anything flow."""
  options = RepulsionOptions(kl_scope='joint')
  _, stats = toy.two_class_setup(options)
  obs = jax.random.normal(jax.random.key(0), (64, toy.NUM_STATES)) + 1.0

  def of_features(seen: jax.Array, blind: bool) -> jax.Array:
    def policy(params: toy.Params, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
      return toy.policy(params, jax.lax.stop_gradient(obs) if blind else obs)

    term = make_repulsion(options, policy, 2, toy.NUM_STATES, 1).term
    assert term is not None
    return term(toy.start(), stats, PolicyBatch(obs=seen), jax.random.key(1))[0]

  slope = jax.jit(jax.value_and_grad(of_features), static_argnums=1)
  value, blind = slope(obs, True)
  assert value < 0
  np.testing.assert_array_equal(blind, np.zeros_like(obs))
  assert jnp.any(slope(obs, False)[1] != 0)
