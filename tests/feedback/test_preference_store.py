import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.feedback import preference_store as prefs
from rlfb_jax.feedback import rating_store as stores
from rlfb_jax.feedback.answers import usable_labels
from rlfb_jax.feedback.clips import Clip, middle

H, DS, DA, NP = 2, 3, 1, 4
SIZES = (H, DS, DA, NP)
NONE_SKIPPED = np.zeros(3, bool)
append = jax.jit(prefs.append)


def clips(first, size, steps=H):
  ids = jnp.arange(first, first + size, dtype=jnp.float32)[:, None, None]
  return Clip(*(ids * jnp.ones((1, steps, d)) for d in (DS, DA, NP)))


def test_answers_stay_with_their_pairs_and_asked_counts_skips():
  store = prefs.init_preferences(7, *SIZES)
  for i in range(2):
    store = append(
      store,
      clips(3 * i, 3),
      clips(100 + 3 * i, 3),
      jnp.array([[0.0, 1.0, 0.5], [1.0, 0.0, 1.0]])[i],
      np.array([False, True, False]),
      env_steps=100 * (i + 1),
      annotator=i,
      confidence=jnp.array([0.1, 0.2, 0.3]),
    )
  assert (int(store.count), int(store.asked)) == (6, 6)
  for leaf in jax.tree.leaves(store.first):
    np.testing.assert_array_equal(leaf[:, 0, 0], [0, 1, 2, 3, 4, 5, 0])
  for leaf in jax.tree.leaves(store.second):
    np.testing.assert_array_equal(leaf[:, -1, -1], [100, 101, 102, 103, 104, 105, 0])
  np.testing.assert_array_equal(store.label, [0, 1, 0.5, 1, 0, 1, 0])
  np.testing.assert_array_equal(store.env_steps, [100] * 3 + [200] * 3 + [0])
  np.testing.assert_array_equal(store.annotator, [0, 0, 0, 1, 1, 1, 0])
  np.testing.assert_allclose(store.confidence[:6], [0.1, 0.2, 0.3] * 2)
  usable = [True, False, True, True, False, True, False]
  np.testing.assert_array_equal(usable_labels(store), usable)
  # What was skipped has a label too, and so has the row that is not filled.
  counts = dict(zip(prefs.ANSWERS, prefs.answer_counts(store).tolist(), strict=True))
  assert counts == {'first better': 1, 'second better': 2, 'equal': 1, 'skipped': 2}


def test_capacity_and_budget_in_one_program():
  traces = []

  @jax.jit
  def add(store, label, wanted):
    traces.append(1)
    pair = clips(0, 3), clips(3, 3)
    return prefs.append(store, *pair, label, NONE_SKIPPED, env_steps=1, wanted=wanted)

  store = jax.jit(lambda: prefs.init_preferences(4, *SIZES))()
  for label, wanted in ((0.5, 2), (1.0, 0), (0.25, 1)):
    store = add(store, jnp.full(3, label), jnp.int32(wanted))
  assert (int(store.count), int(store.asked)) == (3, 3)
  np.testing.assert_array_equal(store.label, [0.5, 0.5, 0.25, 0.0])
  # Room for one of three more; nothing is overwritten.
  store = add(store, jnp.full(3, 1.0), jnp.int32(3))
  assert (int(store.count), int(store.asked)) == (4, 6)
  np.testing.assert_array_equal(store.label, [0.5, 0.5, 0.25, 1.0])
  assert len(traces) == 1


def test_pair_with_a_broken_side_is_skipped_and_leaves_no_nan():
  store = prefs.init_preferences(3, *SIZES)
  first, second = clips(1, 3), clips(4, 3)
  first = first.replace(obs=first.obs.at[0, 1, 2].set(jnp.nan))
  second = second.replace(pose=second.pose.at[2, 0, 0].set(jnp.inf))
  store = append(store, first, second, jnp.ones(3), NONE_SKIPPED, env_steps=0)
  np.testing.assert_array_equal(usable_labels(store), [False, True, False])
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(store))
  assert int(store.asked) == 3


def test_seeds_are_an_axis():
  @jax.jit
  def run(label, wanted):
    store = prefs.init_preferences(4, *SIZES)
    pair = clips(0, 3), clips(3, 3)
    return prefs.append(store, *pair, label, NONE_SKIPPED, env_steps=1, wanted=wanted)

  labels, wanted = jnp.array([[0.0, 1.0, 0.5], [1.0, 1.0, 0.0]]), jnp.array([3, 2])
  both = jax.jit(jax.vmap(run))(labels, wanted)
  for i in range(2):
    alone = run(labels[i], wanted[i])
    for leaf, want in zip(jax.tree.leaves(both), jax.tree.leaves(alone), strict=True):
      np.testing.assert_array_equal(leaf[i], want)


@pytest.mark.parametrize(
  ('module', 'init'),
  [(prefs, prefs.init_preferences), (stores, stores.init_ratings)],
)
def test_memory_is_what_is_allocated(module, init):
  store = init(7, *SIZES)
  held = sum(x.nbytes for x in jax.tree.leaves(store) if x.ndim)
  assert module.memory_bytes(7, *SIZES) == held
  assert not any(x.weak_type for x in jax.tree.leaves(store))


def test_middle_leaves_equal_margins():
  steps = jnp.arange(24.0).reshape(2, 6, 2)
  np.testing.assert_array_equal(middle(steps, 2), steps[:, 2:4])
  np.testing.assert_array_equal(middle(steps, 6), steps)
  tree = middle({'reward': steps[..., 0], 'obs': steps}, 4)
  np.testing.assert_array_equal(tree['reward'], steps[:, 1:5, 0])
  np.testing.assert_array_equal(tree['obs'], steps[:, 1:5])
  for wrong in (0, 3, 8):
    with pytest.raises(ValueError, match=f'steps={wrong} is not the middle'):
      middle(steps, wrong)


def test_refusals():
  with pytest.raises(ValueError, match=r'A preference store of capacity=0'):
    prefs.init_preferences(0, *SIZES)
  store = prefs.init_preferences(3, *SIZES)
  label, no = jnp.zeros(2), np.zeros(2, bool)
  with pytest.raises(ValueError, match='does not fit a preference store'):
    prefs.append(store, clips(0, 2), clips(0, 2, steps=1), label, no, env_steps=0)
  with pytest.raises(ValueError, match=r'shape \(2,\), got 3, \(2,\)'):
    prefs.append(store, clips(0, 2), clips(0, 3), label, no, env_steps=0)
  with pytest.raises(ValueError, match=r'got 2, \(2, 1\)'):
    prefs.append(store, clips(0, 2), clips(0, 2), label[:, None], no, env_steps=0)
