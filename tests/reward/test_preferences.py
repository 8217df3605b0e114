import jax
import jax.numpy as jnp
import numpy as np
import pair_reference as reference
import pytest

from rlfb_jax.reward import preferences as P

jit_loss = jax.jit(
  P.preference_loss, static_argnames=('label_margin', 'equal_as_first')
)


def batch(real=9, size=12, seed=0):
  """Padding at the end holds numbers that must not be seen."""
  rng = np.random.default_rng(seed)
  returns = rng.normal(size=(size, 2)) * 3
  labels = rng.choice([0.0, 1.0, 0.5], size=size)
  returns[real:] = np.nan
  mask = np.arange(size) < real
  arrays = (jnp.asarray(x) for x in (returns, labels, mask))
  return *arrays, (returns[:real], labels[:real])


@pytest.mark.parametrize('margin', [0.0, 0.1])
def test_loss_matches_float64(margin):
  returns, labels, mask, real = batch()
  out = jit_loss(returns, labels, mask, label_margin=margin)
  want = reference.preference_loss(*real, margin)
  np.testing.assert_allclose(out.loss, want, rtol=1e-5)
  decided = real[1] != 0.5
  right = (real[0][:, 1] > real[0][:, 0]) == (real[1] == 1)
  assert float(out.correct) == np.sum(right & decided)
  assert float(out.counted) == np.sum(decided) < 9
  assert bool(out.usable)


def test_gradient_is_finite_beside_padding_and_matches_differences():
  returns, labels, mask, (real, real_labels) = batch()
  got = jax.grad(lambda r: jit_loss(r, labels, mask).loss)(returns)
  assert np.all(np.asarray(got)[9:] == 0)
  np.testing.assert_allclose(
    got[:9], reference.preference_gradient(real, real_labels), atol=1e-6
  )
  h = 1e-6
  for b, side in ((0, 0), (4, 1)):
    up, down = real.copy(), real.copy()
    up[b, side] += h
    down[b, side] -= h
    slope = reference.preference_loss(up, real_labels)
    slope = (slope - reference.preference_loss(down, real_labels)) / (2 * h)
    np.testing.assert_allclose(got[b, side], slope, atol=1e-5)


def test_second_better_trains_the_second_upward():
  grad = jax.grad(lambda r: jit_loss(r, jnp.ones(1), jnp.ones(1, bool)).loss)
  first, second = grad(jnp.zeros((1, 2)))[0]
  assert second == -0.5
  assert first == 0.5


def test_identities():
  returns, labels, mask, _ = batch()
  loss = jit_loss(returns, labels, mask).loss
  swapped = jit_loss(returns[:, ::-1], 1 - labels, mask).loss
  np.testing.assert_allclose(swapped, loss, rtol=1e-5)
  np.testing.assert_allclose(jit_loss(returns + 7, labels, mask).loss, loss, rtol=1e-5)
  # Sums over 50 steps are not divided by anything, and do not overflow.
  far = jit_loss(jnp.array([[-50.0, 50.0]]), jnp.zeros(1), jnp.ones(1, bool))
  np.testing.assert_allclose(far.loss, 100.0)
  none = jit_loss(returns, labels, jnp.zeros(12, bool))
  assert float(none.loss) == 0
  assert not bool(none.usable)


def test_equal_pairs_can_count_as_the_first():
  returns = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
  labels = jnp.array([0.5, 0.5, 0.0, 1.0])
  mask = jnp.ones(4, bool)
  plain = jit_loss(returns, labels, mask)
  assert (float(plain.correct), float(plain.counted)) == (2, 2)
  parity = jit_loss(returns, labels, mask, equal_as_first=True)
  assert (float(parity.correct), float(parity.counted)) == (3, 4)


def test_refusal():
  with pytest.raises(ValueError, match=r'3 pairs need returns \[3, 2\]'):
    P.preference_loss(jnp.zeros((3, 1)), jnp.zeros(3), jnp.ones(3, bool))
  with pytest.raises(ValueError, match=r'label_margin=0\.5 must be less than'):
    P.PreferenceLossOptions(label_margin=0.5)
