import jax
import jax.numpy as jnp
import numpy as np

from rlfb_jax.feedback import archive as archives
from rlfb_jax.feedback.pair_pool import draw_pairs

L, T, N, H = 12, 4, 2, 3
KEY = jax.random.key(0)
append = jax.jit(archives.append)
draw = jax.jit(draw_pairs, static_argnums=(2, 3, 4))


def filled(num_rollouts):
  """Every field carries 100 env + step; no episode ends."""
  archive = archives.init_archive(L, T, N, 2, 1, 1)
  for i in range(num_rollouts):
    ids = 100.0 * jnp.arange(N) + jnp.arange(i * T, (i + 1) * T)[:, None]
    field = ids[..., None]
    archive = append(
      archive,
      archives.ArchivedSteps(
        field * jnp.ones(2), field, field, ids, jnp.zeros((T, N), bool)
      ),
    )
  return archive


def starts(num_steps, recent=L):
  oldest = max(0, num_steps - min(L, recent))
  return [100 * e + t for e in range(N) for t in range(oldest, num_steps - H + 1)]


def test_sides_are_independent_and_uniform_and_rewards_stay_with_them():
  pairs = 8000
  pool = draw(KEY, filled(4), pairs, H)
  assert np.all(np.asarray(pool.valid))
  assert pool.candidates.size == pairs
  sides = []
  for clip, rewards in zip(
    pool.candidates, (pool.first_rewards, pool.second_rewards), strict=True
  ):
    rewards = np.asarray(rewards)
    np.testing.assert_array_equal(rewards, rewards[:, :1] + np.arange(H))
    for leaf in jax.tree.leaves(clip):
      np.testing.assert_array_equal(leaf[..., -1], rewards)
    sides.append(rewards[:, 0].astype(int))
  want = starts(16)
  table = np.zeros((len(want), len(want)))
  np.add.at(table, tuple(np.searchsorted(want, side) for side in sides), 1)
  assert table.sum() == pairs
  # Chi-square of the joint table against independent uniform sides.
  cells = table.size
  chi2 = np.sum((table - pairs / cells) ** 2) / (pairs / cells)
  assert chi2 < (cells - 1) + 4 * np.sqrt(2 * (cells - 1))


def test_recent_pairs_lie_within_the_newest_steps():
  for num_rollouts, recent in ((4, 5), (2, 5), (4, H), (1, 50)):
    pool = draw(KEY, filled(num_rollouts), 200, H, recent)
    firsts = {int(x) for x in np.asarray(pool.first_rewards)[:, 0]}
    assert firsts == set(starts(num_rollouts * T, recent))


def test_take_keeps_pairs_together():
  pool = draw(KEY, filled(3), 20, H)
  rows = jnp.array([7, 3])
  taken = pool.take(rows)
  np.testing.assert_array_equal(taken.second_rewards, pool.second_rewards[rows])
  np.testing.assert_array_equal(
    taken.candidates.second.obs[..., 0], pool.second_rewards[rows]
  )


def test_empty_archive_says_so():
  assert not np.any(np.asarray(draw(KEY, filled(0), 4, H).valid))
