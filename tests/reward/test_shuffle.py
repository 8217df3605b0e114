import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.reward.shuffle import batch_count, stratified_order, uniform_order

USABLE = jnp.arange(300) % 3 != 1


@pytest.mark.parametrize('stratified', [False, True])
def test_usable_labels_come_once_and_first(stratified):
  ratings = jax.random.randint(jax.random.key(0), (300,), 0, 4)

  @jax.jit
  def order(key):
    if stratified:
      return stratified_order(key, USABLE, ratings, 4)
    return uniform_order(key, USABLE)

  a, b = np.asarray(order(jax.random.key(1))), np.asarray(order(jax.random.key(2)))
  for got in (a, b):
    assert set(got[:200]) == set(np.flatnonzero(USABLE))
    assert set(got) == set(range(300))
  assert np.sum(a[:200] == b[:200]) < 20


def test_classes_that_there_are_not_leave_the_strata_alone():
  ratings = jax.random.randint(jax.random.key(0), (300,), 0, 3)
  key = jax.random.key(1)
  orders = [
    jax.jit(lambda n=n: stratified_order(key, USABLE, ratings, n))() for n in (3, 6)
  ]
  np.testing.assert_array_equal(*orders)


def test_strata_are_even():
  rng = np.random.default_rng(0)
  ratings = rng.choice(4, size=640, p=[0.7, 0.2, 0.09, 0.01])
  labels = jnp.asarray(ratings)
  order = jax.jit(lambda k: stratified_order(k, jnp.ones(640, bool), labels, 4))
  totals = np.bincount(ratings, minlength=4)
  firsts = set()
  for seed in range(20):
    shuffled = ratings[np.asarray(order(jax.random.key(seed)))]
    for j in range(5):
      counts = np.bincount(shuffled[128 * j : 128 * (j + 1)], minlength=4)
      assert np.all(np.abs(counts - totals / 5) <= 2)
    firsts.add(int(np.flatnonzero(shuffled == 3)[0]))
  assert len(firsts) > 10  # Where a rare class comes is random.


@pytest.mark.parametrize(
  ('labels', 'batches'),
  [
    (0, 0),
    (1, 1),
    (31, 1),
    (100, 1),
    (128, 1),
    (159, 1),
    (160, 2),
    (200, 2),
    (1000, 8),
  ],
)
def test_small_last_minibatch_is_dropped_once_a_full_one_exists(labels, batches):
  got = batch_count(jnp.int32(labels), 128, 32)
  assert int(got) == batches
  assert got.dtype == jnp.int32


def test_rule_can_be_switched_off():
  assert int(batch_count(jnp.int32(129), 128, 0)) == 2
