"""Weights, bounds, heads' formulas, gates, diagnostics: the small functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from rlfb_jax.core.padding import Padded
from rlfb_jax.repulsion import PolicyBatch, RepulsionOptions, abort_rule, bounds
from rlfb_jax.repulsion.diagnostics import sampling_floor
from rlfb_jax.repulsion.features import Whitening, features
from rlfb_jax.repulsion.heads import normal_kl
from rlfb_jax.repulsion.policy import (
  saturated_share,
  squashed_entropy,
  squashed_log_prob,
)
from rlfb_jax.repulsion.weights import (
  active_rows,
  below_median_gate,
  class_weights,
  included_classes,
)


def _weights(n: int, **options: object) -> list[float]:
  return class_weights(RepulsionOptions(**options), n).tolist()  # type: ignore[arg-type]


def test_weights() -> None:
  assert _weights(4) == [1, 0.5, 0.25, 0, 0]
  assert _weights(4, include_best=True) == [1, 0.5, 0.25, 0.125, 0]
  assert _weights(4, weights='reversed') == [0.25, 0.5, 1, 0, 0]
  assert _weights(4, weights='pooled') == [0, 0, 0, 0, 1.75]
  assert _weights(2) == [1, 0, 0]
  for n, each in {3: 0.75, 4: 0.5833, 5: 0.46875, 6: 0.3875}.items():
    np.testing.assert_allclose(
      _weights(n, weights='uniform'), [each] * (n - 1) + [0, 0], atol=1e-4
    )
  hpml = RepulsionOptions(weights='hpml')
  assert [included_classes(hpml, n) for n in (2, 3, 4, 5, 6)] == [2, 3, 4, 5, 5]
  np.testing.assert_allclose(
    class_weights(hpml, 6), [1, 0.5, 0.25, 0.125, 0.06, 0, 0], rtol=1e-6
  )
  np.testing.assert_array_equal(active_rows(RepulsionOptions(weights='pooled'), 4), [4])


def test_bounds_and_their_slopes() -> None:
  u = jnp.array([-0.1, 0.0, 2.0, 40.0])
  w = jnp.array([1.0, 1.0, 0.5, 0.25])
  kappa = 5.0
  saturating = 0.5 * 5 * (1 - np.exp(-2 / 5)) + 0.25 * 5 * (1 - np.exp(-8.0))
  expected = {
    'saturating': saturating,
    'identity': 0.5 * 2 + 0.25 * 40,
    'logsum': np.log(1e-6 + 11),
  }
  for bound, value in expected.items():
    np.testing.assert_allclose(bounds.total(u, w, bound, kappa), value, rtol=1e-6)
    slope = jax.grad(bounds.total)(u, w, bound, kappa)
    np.testing.assert_allclose(bounds.slopes(u, w, bound, kappa), slope, rtol=1e-4)
    assert bounds.total(u, 0 * w, bound, kappa) == 0
    np.testing.assert_array_equal(
      jax.grad(bounds.total)(u, 0 * w, bound, kappa), np.zeros(4)
    )
  far = bounds.total(jnp.array([1e6]), jnp.ones(1), 'saturating', kappa)
  assert far <= kappa


def test_the_gate_opens_below_the_median_class() -> None:
  for predicted in ([3, 1, 2], [3, 1, 2, 3], [2]):  # Of two medians the lower.
    np.testing.assert_array_equal(
      below_median_gate(jnp.array(predicted), 4), [True, True, False, False, True]
    )
  worst = below_median_gate(jnp.zeros(5, jnp.int32), 4)
  np.testing.assert_array_equal(worst, [False] * 5)


@pytest.mark.parametrize('n', [2, 3, 5])
def test_the_gate_of_fewer_classes_is_the_same(n: int) -> None:
  padded = jax.jit(lambda n, *args: below_median_gate(*args, Padded(n, 5)))
  predicted = jnp.array([n - 1, 1, n - 1, 0, 0])
  for real in (1, 2, 3, 5):
    want = below_median_gate(predicted[:real], n)
    got = padded(jnp.int32(n), predicted[:real])
    np.testing.assert_array_equal(got[:n], want[:n])
    np.testing.assert_array_equal(got[n:], [*[False] * (5 - n), want[n]])


def test_features_whiten_and_clip() -> None:
  whitening = Whitening(jnp.array([1.0, 0.0]), jnp.array([2.0, 1.0]), jnp.array([0.5]))
  x = features(whitening, jnp.array([[3.0, -99.0]]), jnp.array([[0.2]]))
  np.testing.assert_allclose(x, [[1.0, -5.0, 0.4]], rtol=1e-6)


def test_head_kl_and_its_derivatives() -> None:
  """Against the closed forms, in float64."""
  rng = np.random.default_rng(0)
  with jax.enable_x64(True):
    m, log_v, mu, log_s = (jnp.asarray(rng.normal(size=4) * 0.5) for _ in range(4))
    v, s = np.exp(log_v), np.exp(log_s)
    value = normal_kl(m, log_v, mu, log_s)
    by_dim = np.log(s / v) + (v**2 + (m - mu) ** 2) / (2 * s**2) - 0.5
    np.testing.assert_allclose(value, by_dim.sum(), rtol=1e-12)
    slopes = jax.grad(normal_kl, (2, 3))(m, log_v, mu, log_s)
    np.testing.assert_allclose(slopes[0], (mu - m) / s**2, rtol=1e-10)
    np.testing.assert_allclose(slopes[1], 1 - (v**2 + (m - mu) ** 2) / s**2, rtol=1e-10)
    eps = 1e-6
    up, down = (
      normal_kl(m, log_v, mu, log_s + eps),
      normal_kl(m, log_v, mu, log_s - eps),
    )
    np.testing.assert_allclose(slopes[1].sum(), (up - down) / (2 * eps), rtol=1e-6)


def test_squashed_density_integrates_to_one_and_gives_the_entropy() -> None:
  mean, log_std = jnp.array([[0.4]]), jnp.array([[-0.3]])
  edges = np.linspace(-1, 1, 200_001)
  action = jnp.asarray((edges[1:] + edges[:-1]) / 2, jnp.float32)[:, None]
  log_prob = np.asarray(squashed_log_prob(mean, log_std, action), np.float64)
  mass = np.exp(log_prob) * (edges[1] - edges[0])
  np.testing.assert_allclose(mass.sum(), 1, atol=1e-3)
  noise = jax.random.normal(jax.random.key(0), (100_000, 1))
  estimate = squashed_entropy(
    jnp.broadcast_to(mean, noise.shape), jnp.broadcast_to(log_std, noise.shape), noise
  )
  np.testing.assert_allclose(jnp.mean(estimate), -(mass * log_prob).sum(), atol=0.01)


def test_diagnosis_of_the_bad_policy_lies_at_its_sampling_floor() -> None:
  """Two fits of one law differ by the floor, and by nothing else."""
  options = RepulsionOptions(shrinkage=0.0)
  repulsion, stats = toy.two_class_setup(options)
  bad = {'gain': jnp.asarray(toy.BAD_GAIN)[:, None], 'log_std': jnp.full(1, -0.7)}

  @jax.jit
  @jax.vmap
  def joint(key: jax.Array) -> jax.Array:
    state_key, noise_key = jax.random.split(key)
    obs = jax.random.normal(state_key, (128, toy.NUM_STATES))
    seen = repulsion.diagnose(bad, stats, PolicyBatch(obs=obs), noise_key)
    return seen['kl/state'][0] + seen['kl/action'][0]

  mean = np.mean(joint(jax.random.split(jax.random.key(4), 60)))
  floor = float(sampling_floor(4, jnp.asarray(4000), jnp.asarray(128)))
  np.testing.assert_allclose(floor, 4 * 7 / 4 * (1 / 4000 + 1 / 128), rtol=1e-6)
  assert 0.7 * floor < mean < 1.5 * floor
  batch = PolicyBatch(obs=jnp.zeros((8, 3)))
  seen = jax.jit(repulsion.diagnose)(bad, stats, batch, jax.random.key(0))
  assert set(seen) == {
    'kl/state',
    'kl/action',
    'kl/floor',
    'kl/segments',
    'policy/entropy',
    'policy/saturation',
    'policy/log_std',
  }
  np.testing.assert_array_equal(seen['kl/segments'], [400, 100])


def test_abort_after_five_bad_iterations_in_a_row() -> None:
  strikes = jnp.zeros((), jnp.int32)
  history = []
  for entropy, saturation in [(-7.0, 0.0)] * 4 + [(0.0, 0.0)] + [(0.0, 0.95)] * 5:
    decision = abort_rule(strikes, jnp.asarray(entropy), jnp.asarray(saturation), 2)
    strikes = decision.strikes
    history.append(bool(decision.abort))
  assert history == [False] * 9 + [True]
  nan = abort_rule(jnp.asarray(4), jnp.asarray(jnp.nan), jnp.asarray(0.0), 2)
  assert nan.abort


def test_what_is_not_a_number_is_saturated() -> None:
  action = jnp.array([0.5, -0.98, jnp.nan, jnp.inf])
  assert float(saturated_share(action)) == 0.75


@pytest.mark.parametrize(
  'bad', [{'beta': -1.0}, {'kl_mode': 'none'}, {'shrinkage': 2.0}]
)
def test_options_check_themselves(bad: dict[str, object]) -> None:
  with pytest.raises(ValueError, match=next(iter(bad))):
    RepulsionOptions(**bad)  # type: ignore[arg-type]
