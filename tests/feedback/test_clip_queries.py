import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.feedback.clip_queries import CLIP_STRATEGIES
from rlfb_jax.feedback.clips import Clip

P, H, K = 40, 5, 3
KEY = jax.random.key(0)


def setup(scales=(1.0, 1.0, 1.0)):
  rng = np.random.default_rng(1)
  obs = jnp.asarray(rng.normal(size=(P, H, K)), jnp.float32)
  clip = Clip(obs, jnp.zeros((P, H, 1)), jnp.zeros((P, H, 1)))
  # Member i reads observation i.
  scales = jnp.asarray(scales)
  return clip, lambda c: jnp.moveaxis(c.obs, -1, 0) * scales[:, None, None]


def reference(returns, normalise):
  returns = np.asarray(returns, np.float64)
  if normalise:
    low, high = returns.min(1, keepdims=True), returns.max(1, keepdims=True)
    returns = (returns - low) / (high - low)
  return np.argsort(-returns.std(axis=0))


@pytest.mark.parametrize('name', list(CLIP_STRATEGIES))
def test_indices_are_distinct_and_of_one_signature(name):
  clip, r_hat = setup()
  index = jax.jit(lambda k: CLIP_STRATEGIES[name].choose(k, r_hat, clip, 7))(KEY)
  assert index.shape == (7,)
  assert index.dtype == jnp.int32
  assert len(set(np.asarray(index).tolist())) == 7
  assert np.all((np.asarray(index) >= 0) & (np.asarray(index) < P))
  with pytest.raises(ValueError, match='41 queries cannot be chosen from 40'):
    CLIP_STRATEGIES[name].choose(KEY, r_hat, clip, P + 1)


@pytest.mark.parametrize(
  ('name', 'normalise'), [('disagreement', True), ('disagreement_raw', False)]
)
def test_disagreement_takes_the_widest_spread(name, normalise):
  clip, r_hat = setup(scales=(1.0, 3.0, 0.2))
  returns = np.asarray(r_hat(clip)).sum(-1)
  want = reference(returns, normalise)[:6]
  assert set(want) != set(reference(returns, not normalise)[:6])
  got = CLIP_STRATEGIES[name].choose(KEY, r_hat, clip, 6)
  assert set(np.asarray(got).tolist()) == set(want)


@pytest.mark.parametrize('name', ['disagreement', 'disagreement_raw'])
def test_segments_without_a_value_come_last_and_do_not_rank_the_others(name):
  clip, r_hat = setup()
  whole = CLIP_STRATEGIES[name].choose(KEY, r_hat, clip, 6)
  padded = jax.tree.map(lambda x: jnp.concatenate([x[:3], x]), clip)
  for broken in (jnp.nan, jnp.inf):
    bad = padded.replace(obs=padded.obs.at[:3].set(broken))
    got = CLIP_STRATEGIES[name].choose(KEY, r_hat, bad, 6)
    np.testing.assert_array_equal(got, whole + 3)


@pytest.mark.parametrize('name', ['disagreement', 'disagreement_raw'])
@pytest.mark.parametrize('wanted', [1, 3, 8])
def test_a_smaller_session_chooses_as_if_it_were_the_largest(name, wanted):
  clip, r_hat = setup(scales=(1.0, 3.0, 0.2))
  size = P // 8 * wanted
  returns = np.asarray(r_hat(clip)).sum(-1)[:, :size]
  want = reference(returns, name == 'disagreement')[:wanted]
  for junk in (1.0, 1e3, np.nan):
    scale = np.where(np.arange(P) < size, 1.0, junk)[:, None, None]
    got = CLIP_STRATEGIES[name].choose(
      KEY, r_hat, clip.replace(obs=clip.obs * scale), 8, wanted
    )
    np.testing.assert_array_equal(got[:wanted], want)
    assert len(set(np.asarray(got).tolist())) == 8
    assert np.all(np.asarray(got)[: min(8, size)] < size)


def test_normalised_disagreement_ignores_the_members_scales():
  clip, plain = setup()
  _, scaled = setup(scales=(1.0, 30.0, 0.1))
  a = CLIP_STRATEGIES['disagreement'].choose(KEY, plain, clip, 6)
  b = CLIP_STRATEGIES['disagreement'].choose(KEY, scaled, clip, 6)
  np.testing.assert_array_equal(a, b)


def test_uniform_is_uniform():
  clip, r_hat = setup()
  keys = jax.random.split(KEY, 2000)
  drawn = jax.vmap(lambda k: CLIP_STRATEGIES['uniform'].choose(k, r_hat, clip, 4))(keys)
  counts = np.bincount(np.asarray(drawn).ravel(), minlength=P)
  want = 2000 * 4 / P
  assert np.sum((counts - want) ** 2 / want) < P + 4 * np.sqrt(2 * P)


def test_pool():
  assert CLIP_STRATEGIES['uniform'].pool_size(100, 10) == 100
  assert CLIP_STRATEGIES['disagreement'].pool_size(100, 10) == 1000
