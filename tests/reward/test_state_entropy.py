import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.reward.state_entropy import (
  init_state_entropy,
  knn_distances,
  smallest,
  state_entropy_reward,
)

pay = jax.jit(state_entropy_reward, static_argnames='k')


def reference(rollouts, capacity, k):
  """Step by step in float64: add N observations, then look for neighbours."""
  seen, everything, rewards = [], [], []
  for obs in rollouts:
    for step in np.asarray(obs, np.float64):
      seen = seen + list(step)
      distances = []
      for x in step:
        d = np.sort(np.sqrt(np.sum((np.array(seen) - x) ** 2, axis=-1)))
        distances.append(d[min(k, len(d) - 1)])
      everything += distances
      rewards.append(np.array(distances) / np.std(everything))
  return np.array(rewards)


def test_matches_step_by_step_float64():
  rng = np.random.default_rng(0)
  rollouts = [rng.normal(size=(20, 4, 3)) * [1, 5, 0.1] + 30 for _ in range(3)]
  want = reference(rollouts, 240, 5)
  state = init_state_entropy(240, 3)
  got = []
  for obs in rollouts:
    state, reward = pay(state, jnp.asarray(obs, jnp.float32))
    got.append(reward)
  np.testing.assert_allclose(np.concatenate(got), want, rtol=2e-4)
  assert int(state.filled) == 240
  assert pay._cache_size() == 1


def test_sixth_smallest_counts_the_point_itself():
  # On a line with unit gaps, the middle point's neighbours are 1, 1, 2, 2, 3 away.
  line = jnp.arange(11.0).reshape(1, 11, 1)
  state, _ = pay(init_state_entropy(11, 1), line)
  ages = jnp.zeros(11, int)
  got = knn_distances(line[0], jnp.ones(11, int), line[0], ages, 5)
  np.testing.assert_allclose(got, [5, 4, 3, 3, 3, 3, 3, 3, 3, 4, 5])
  assert int(state.filled) == 11


def test_early_steps_take_the_farthest_there_is():
  obs = jnp.array([[[0.0], [1.0]], [[3.0], [10.0]]])
  ages = jnp.array([1, 1, 2, 2])
  got = knn_distances(
    obs.reshape(4, 1), jnp.array([2, 2, 3, 3]), obs.reshape(4, 1), ages, 5
  )
  np.testing.assert_allclose(got, [1, 1, 7, 10])


def test_near_neighbours_far_from_the_origin_keep_their_digits():
  """Here |x|^2 + |y|^2 - 2 x.y alone is wrong by several percent."""
  rng = np.random.default_rng(1)
  centres = rng.normal(size=(40, 24)) * 5 + 30
  points = (centres[:, None] + 1e-2 * rng.normal(size=(40, 50, 24))).reshape(-1, 24)
  points = points.astype(np.float32)
  exact = points.astype(np.float64)
  d = np.sqrt(((exact[:200, None] - exact[None]) ** 2).sum(-1))
  want = np.sort(d, axis=1)[:, 5]
  x = jnp.asarray(points)
  ages = jnp.zeros(2000, int)
  got = jax.jit(lambda q, p: knn_distances(q, jnp.ones(200, int), p, ages, 5))(
    x[:200], x
  )
  np.testing.assert_allclose(got, want, rtol=1e-3)
  norms = jnp.sum(x**2, axis=1)
  naive = jnp.sort(norms[:200, None] + norms - 2 * x[:200] @ x.T, axis=1)[:, 5]
  error = np.abs(np.sqrt(np.maximum(naive, 0)) / want - 1)
  assert np.max(error) > 0.02


@pytest.mark.parametrize('columns', [64, 640, 4096, 100])
def test_smallest_is_exact(columns):
  values = jax.random.uniform(jax.random.key(0), (9, columns))
  got, index = jax.jit(lambda v: smallest(v, 6))(values)
  np.testing.assert_array_equal(got, np.sort(np.asarray(values), axis=1)[:, :6])
  np.testing.assert_array_equal(jnp.take_along_axis(values, index, axis=1), got)


def test_ring_forgets_the_oldest_rollout():
  rng = np.random.default_rng(2)
  rollouts = [jnp.asarray(rng.normal(size=(5, 8, 2)), jnp.float32) for _ in range(4)]
  state = init_state_entropy(120, 2)
  for obs in rollouts[:3]:
    state, _ = pay(state, obs)
  after, _ = pay(state, rollouts[3])
  assert int(after.filled) == 120
  held = {tuple(row) for row in np.asarray(after.obs)}
  assert held == {tuple(r) for o in rollouts[1:] for r in np.asarray(o).reshape(-1, 2)}


def test_broken_observation_is_paid_nothing_and_harms_nobody():
  rng = np.random.default_rng(3)
  obs = rng.normal(size=(4, 8, 2)).astype(np.float32)
  obs[1, 3] = np.nan
  _, reward = pay(init_state_entropy(32, 2), jnp.asarray(obs))
  assert np.all(np.isfinite(reward))
  assert float(reward[1, 3]) == 0
  assert np.all(np.asarray(reward[2:]) > 0)


def test_equal_observations_do_not_divide_by_zero():
  _, reward = pay(init_state_entropy(32, 2), jnp.ones((4, 8, 2)))
  np.testing.assert_array_equal(reward, 0)


def test_seeds_are_an_axis():
  obs = jax.random.normal(jax.random.key(0), (3, 4, 8, 2))
  states = jax.vmap(lambda _: init_state_entropy(32, 2))(jnp.arange(3))
  _, rewards = jax.jit(jax.vmap(state_entropy_reward))(states, obs)
  for i in range(3):
    _, alone = pay(init_state_entropy(32, 2), obs[i])
    np.testing.assert_allclose(rewards[i], alone, rtol=1e-4)


def test_refusal():
  with pytest.raises(ValueError, match=r'of 100 .* rollouts of 32; try 96'):
    state_entropy_reward(init_state_entropy(100, 2), jnp.zeros((4, 8, 2)))
