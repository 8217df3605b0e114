import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.feedback import unlabelled_store
from rlfb_jax.feedback.clips import Clip

C, STEPS, DS, DA = 5, 4, 2, 1
append = jax.jit(unlabelled_store.append)


def clips(ids):
  ids = jnp.asarray(ids, jnp.float32)[:, None, None]
  return Clip(*(ids * jnp.ones((1, STEPS, d)) for d in (DS, DA, 3)))


def test_newest_pairs_stay_and_their_sides_together():
  store = unlabelled_store.init_unlabelled(C, STEPS, DS, DA)
  held = []
  for i, wanted in enumerate((3, 1, 0, 3, 2, 3)):
    new = [10 * i + j + 1 for j in range(3)]
    pair = clips(new), clips([-x for x in new])
    store = append(store, *pair, wanted=jnp.int32(wanted))
    held = (held + new[:wanted])[-C:]
    assert int(store.count) == len(held)
    rows = (int(store.head) - len(held) + np.arange(len(held))) % C
    # Rows before `count` are the filled ones, also before the ring is full.
    assert set(rows.tolist()) == set(range(len(held)))
    for side, sign in ((store.first, 1), (store.second, -1)):
      for leaf in jax.tree.leaves(side):
        want = sign * np.asarray(held, float)[:, None, None] * np.ones(leaf.shape[1:])
        np.testing.assert_array_equal(leaf[rows], want)
  assert append._cache_size() == 1


def test_broken_pairs_are_lost_without_a_gap():
  store = unlabelled_store.init_unlabelled(C, STEPS, DS, DA)
  first, second = clips([1, 2, 3, 4]), clips([1, 2, 3, 4])
  first = first.replace(obs=first.obs.at[0, 1, 0].set(jnp.nan))
  second = second.replace(action=second.action.at[2, 0, 0].set(jnp.inf))
  store = append(store, first, second, wanted=jnp.int32(4))
  assert int(store.count) == int(store.head) == 2
  np.testing.assert_array_equal(store.first.obs[:, 0, 0], [2, 4, 0, 0, 0])
  np.testing.assert_array_equal(store.second.obs[:, 0, 0], [2, 4, 0, 0, 0])


def test_memory_is_what_is_allocated():
  store = unlabelled_store.init_unlabelled(C, STEPS, DS, DA)
  held = sum(x.nbytes for x in jax.tree.leaves((store.first, store.second)))
  assert unlabelled_store.memory_bytes(C, STEPS, DS, DA) == held
  assert not any(x.weak_type for x in jax.tree.leaves(store))


def test_refusals():
  with pytest.raises(ValueError, match='capacity=0'):
    unlabelled_store.init_unlabelled(0, STEPS, DS, DA)
  store = unlabelled_store.init_unlabelled(C, STEPS, DS, DA)
  with pytest.raises(ValueError, match=r'6 first and 6 second .* capacity=5'):
    unlabelled_store.append(store, clips(range(6)), clips(range(6)))
  with pytest.raises(ValueError, match='2 first and 3 second'):
    unlabelled_store.append(store, clips(range(2)), clips(range(3)))
  short = jax.tree.map(lambda x: x[:, :3], clips(range(2)))
  with pytest.raises(ValueError, match='does not fit a pair store'):
    unlabelled_store.append(store, short, short)
