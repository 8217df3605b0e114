"""The replay buffer against a list that forgets its oldest rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.core import replay as lib

WIDTHS = (3, 2, 1)


def rows(start, count):
  """Transitions that can be told apart, and their rewards."""
  ids = np.arange(start, start + count, dtype=np.float32)
  fields = [ids[:, None] + 1000 * np.arange(w) for w in WIDTHS[:2]] + [ids % 2 == 0]
  return [jnp.asarray(f) for f in fields], jnp.asarray(ids[:, None] * [1.0, -1.0])


def filled(capacity, insertions, count=4):
  replay = lib.init_replay(capacity, WIDTHS, 2)
  insert = jax.jit(lib.insert, donate_argnums=0)
  for i in range(insertions):
    replay = insert(replay, *rows(i * count, count))
  return replay


def held(replay):
  """Ids of the rows that are held, in the order of the matrix."""
  return np.asarray(replay.rows[: int(replay.filled), 0]).astype(int)


def test_the_oldest_rows_make_room():
  replay = filled(12, 2)
  assert int(replay.filled) == 8
  np.testing.assert_array_equal(held(replay), np.arange(8))
  replay = filled(12, 5)
  assert int(replay.filled) == 12
  assert sorted(held(replay)) == list(range(8, 20))


def test_fields_come_back_as_they_went_in():
  replay = filled(12, 5)
  index = jnp.arange(12).reshape(3, 4)
  (obs, action, flag), rewards = lib.gather(replay, index)
  ids = np.asarray(obs[..., 0])
  np.testing.assert_array_equal(obs[..., 2], ids + 2000)
  np.testing.assert_array_equal(action[..., 1], ids + 1000)
  np.testing.assert_array_equal(flag[..., 0], ids % 2 == 0)
  np.testing.assert_array_equal(rewards, ids[..., None] * [1.0, -1.0])


def test_draws_are_uniform_over_what_is_held():
  replay = filled(40, 5)  # Half full.
  index = np.asarray(lib.draw(jax.random.key(0), replay, (40_000,)))
  counts = np.bincount(index, minlength=40)
  assert counts[20:].sum() == 0
  # Pearson's statistic has 19 degrees of freedom; 43.8 is exceeded once in 1000.
  expected = 40_000 / 20
  assert np.sum((counts[:20] - expected) ** 2 / expected) < 43.8


def test_the_newest_rows_can_be_drawn_alone():
  replay = filled(12, 5)  # The ring has turned: ids 8 to 19 are held.
  index = lib.draw(jax.random.key(0), replay, (500,), newest=5)
  assert set(np.asarray(replay.rows[index, 0]).astype(int)) == set(range(15, 20))


@pytest.mark.parametrize('insertions', [1, 2, 4])
def test_relabelling_rewrites_the_pay_of_every_row_held_and_nothing_else(
  insertions, monkeypatch
):
  monkeypatch.setattr(lib, 'CHUNK_ROWS', 5)
  before = filled(12, insertions)
  after = jax.jit(
    lambda replay: lib.relabel(
      replay, lambda fields: jnp.tile(10 * fields[0][:, :1] + 1, (1, 2))
    )
  )(before)
  np.testing.assert_array_equal(after.rows, before.rows)
  count = int(before.filled)
  expected = 10 * np.asarray(before.rows[:count, :1]) + 1
  np.testing.assert_array_equal(after.rewards[:count], np.tile(expected, (1, 2)))
  assert int(after.head) == int(before.head)
  assert int(after.filled) == count


def test_seeds_have_buffers_of_their_own():
  one = filled(12, 2)
  two = jax.tree.map(lambda x, y: jnp.stack([x, y]), one, filled(12, 4))
  fields, rewards = rows(100, 4)
  out = jax.vmap(lambda r: lib.insert(r, fields, rewards))(two)
  np.testing.assert_array_equal(out.filled, [12, 12])
  assert int(out.rows[0, 8, 0]) == 100
  assert int(out.rows[1, 4, 0]) == 100


def test_what_does_not_fit_is_refused():
  replay = lib.init_replay(10, WIDTHS, 2)
  with pytest.raises(ValueError, match='try 12'):
    lib.insert(replay, *rows(0, 4))
  with pytest.raises(ValueError, match='do not fit'):
    lib.insert(replay, rows(0, 5)[0], jnp.zeros((5, 3)))
  with pytest.raises(ValueError, match='at least 1'):
    lib.init_replay(0, WIDTHS, 1)


def test_the_announced_memory_is_what_is_taken():
  replay = lib.init_replay(128, WIDTHS, 2)
  taken = replay.rows.nbytes + replay.rewards.nbytes
  assert lib.memory_bytes(128, WIDTHS, 2) == taken
