import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.feedback import rating_store as stores
from rlfb_jax.feedback.answers import usable_labels
from rlfb_jax.feedback.clips import Clip

H, DS, DA, NP = 2, 3, 1, 4


def clips(first, size):
  ids = jnp.arange(first, first + size, dtype=jnp.float32)[:, None, None]
  return Clip(*(ids * jnp.ones((1, H, d)) for d in (DS, DA, NP)))


def test_answers_stay_with_their_clips_and_asked_counts_skips():
  store = stores.init_ratings(7, H, DS, DA, NP)
  append = jax.jit(stores.append)
  for i in range(2):
    store = append(
      store,
      clips(3 * i, 3),
      jnp.arange(3 * i, 3 * i + 3) % 4,
      jnp.array([False, True, False]),
      env_steps=100 * (i + 1),
      annotator=i,
      confidence=jnp.array([0.1, 0.2, 0.3]),
    )
  assert (int(store.count), int(store.asked)) == (6, 6)
  for leaf in jax.tree.leaves(store.clip):
    np.testing.assert_array_equal(leaf[:6, 0, 0], np.arange(6))
  np.testing.assert_array_equal(store.rating[:6], [0, 1, 2, 3, 0, 1])
  np.testing.assert_array_equal(store.env_steps, [100] * 3 + [200] * 3 + [0])
  np.testing.assert_array_equal(store.annotator, [0, 0, 0, 1, 1, 1, 0])
  np.testing.assert_allclose(store.confidence[:6], [0.1, 0.2, 0.3] * 2)
  usable = [True, False, True, True, False, True, False]
  np.testing.assert_array_equal(usable_labels(store), usable)


def test_what_exceeds_the_capacity_is_lost_and_nothing_overwritten():
  store = stores.init_ratings(4, H, DS, DA, NP)
  no = jnp.zeros(3, bool)
  store = stores.append(store, clips(0, 3), jnp.arange(3), no, env_steps=1)
  store = stores.append(store, clips(3, 3), jnp.arange(3), no, env_steps=2)
  assert (int(store.count), int(store.asked)) == (4, 6)
  np.testing.assert_array_equal(store.clip.obs[:, 0, 0], [0, 1, 2, 3])
  np.testing.assert_array_equal(store.rating, [0, 1, 2, 0])


def test_only_wanted_answers_are_added():
  store = stores.init_ratings(6, H, DS, DA, NP)
  append = jax.jit(lambda *args, **kwargs: stores.append(*args, **kwargs))
  no = jnp.zeros(3, bool)
  for wanted in (2, 0, 1):
    store = append(
      store, clips(0, 3), jnp.arange(1, 4), no, env_steps=1, wanted=jnp.int32(wanted)
    )
  assert (int(store.count), int(store.asked)) == (3, 3)
  np.testing.assert_array_equal(store.rating, [1, 2, 1, 0, 0, 0])
  assert append._cache_size() == 1


def test_broken_clip_is_skipped_and_leaves_no_nan():
  store = stores.init_ratings(3, H, DS, DA, NP)
  clip = clips(1, 2)
  clip = clip.replace(obs=clip.obs.at[0, 1, 2].set(jnp.nan))
  store = stores.append(store, clip, jnp.ones(2, int), jnp.zeros(2, bool), env_steps=0)
  np.testing.assert_array_equal(usable_labels(store), [False, True, False])
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(store.clip))
  assert int(store.asked) == 2


def test_refusals():
  store = stores.init_ratings(3, H, DS, DA, NP)
  with pytest.raises(ValueError, match='capacity=0'):
    stores.init_ratings(0, H, DS, DA, NP)
  no = jnp.zeros(2, bool)
  short = jax.tree.map(lambda x: x[:, :1], clips(0, 2))
  with pytest.raises(ValueError, match='does not fit a rating store'):
    stores.append(store, short, jnp.zeros(2, int), no, env_steps=0)
  with pytest.raises(ValueError, match=r'shape \(2,\), got \(2, 1\)'):
    stores.append(store, clips(0, 2), jnp.zeros((2, 1), int), no, env_steps=0)
