import functools

import jax
import jax.numpy as jnp
import numpy as np
import pair_reference as reference
import pytest
from scipy import stats

from rlfb_jax.reward import semi_supervised as S
from rlfb_jax.reward.options import RewardOptions

SURF = S.SurfOptions()


@pytest.fixture(scope='module')
def crops():
  masks = jax.jit(lambda k: S.crop_masks(k, 20_000, 60, SURF))(jax.random.key(0))
  return np.asarray(masks)


def test_crops_are_contiguous_and_pairs_share_their_length(crops):
  lengths = crops.sum(axis=-1)
  np.testing.assert_array_equal(lengths[:, 0], lengths[:, 1])
  edges = np.abs(np.diff(np.pad(crops, ((0, 0), (0, 0), (1, 1))).astype(int), axis=-1))
  np.testing.assert_array_equal(edges.sum(axis=-1), 2)


def test_lengths_are_uniform_on_45_to_55(crops):
  counts = np.bincount(crops[:, 0].sum(axis=-1), minlength=61)
  assert counts[:45].sum() == counts[56:].sum() == 0
  assert stats.chisquare(counts[45:56]).pvalue > 1e-3


def test_starts_are_uniform_on_all_that_fit_and_independent(crops):
  lengths, starts = crops[:, 0].sum(axis=-1), crops.argmax(axis=-1)
  for length in (45, 55):
    chosen = starts[lengths == length]
    places = 60 - length + 1
    table = np.histogram2d(*chosen.T, bins=places, range=[[0, places]] * 2)[0]
    for side in (0, 1):
      assert stats.chisquare(table.sum(axis=side)).pvalue > 1e-3
    assert stats.chisquare(table.ravel()).pvalue > 1e-3


def test_pseudo_label_loss_matches_float64():
  rng = np.random.default_rng(0)
  judged = rng.normal(size=(40, 2)) * 2
  cropped = judged + rng.normal(size=(40, 2))
  mask = np.arange(50) < 40
  padded = [
    np.pad(x, ((0, 10), (0, 0)), constant_values=np.nan) for x in (judged, cropped)
  ]
  margins = [jnp.asarray(x[:, 1] - x[:, 0]) for x in padded]

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
  def loss(judged, cropped):
    return S.pseudo_label_loss(judged, cropped, jnp.asarray(mask), 0.95)

  (got, confident), (by_judged, by_cropped) = loss(*margins)
  want, count = reference.pseudo_label_loss(judged, cropped, 0.95)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  assert float(confident) == count
  assert 0 < count < 40
  np.testing.assert_array_equal(by_judged, 0)
  assert np.all(np.isfinite(by_cropped))
  # The denominator is the 40 real pairs, not the confident ones.
  p = reference.sigmoid(cropped[:, 1] - cropped[:, 0])
  sure = reference.sigmoid(np.abs(judged[:, 1] - judged[:, 0])) >= 0.95
  slope = sure * (p - (judged[:, 1] > judged[:, 0])) / 40
  np.testing.assert_allclose(by_cropped[:40], slope, atol=1e-6)


@pytest.mark.parametrize(
  ('labels', 'update', 'steps'),
  [(0, 1000, 0), (10, 1000, 79), (100, 1000, 782), (50, 20, 8)],
)
def test_steps_grow_with_the_labels(labels, update, steps):
  got = S.surf_steps(
    RewardOptions(), S.SurfOptions(reward_update=update), jnp.int32(labels)
  )
  assert int(got) == steps
  assert got.dtype == jnp.int32


def test_refusal():
  with pytest.raises(ValueError, match=r'crop=5 must be at most 2 \* margin=4'):
    S.SurfOptions(margin=2)
  with pytest.raises(ValueError, match='nothing between margins of 5'):
    S.middle_steps(10, 5)
  with pytest.raises(ValueError, match='crop=5 must be less than the 4 steps'):
    S.crop_masks(jax.random.key(0), 2, 14, SURF)
