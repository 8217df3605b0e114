"""Class Gaussians against float64 NumPy, and their controls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.repulsion import RepulsionOptions, class_statistics
from rlfb_jax.repulsion.heads import HEAD_MARGIN

N, C, H, DS, DA = 3, 90, 6, 4, 2


def _clips(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  rng = np.random.default_rng(seed)
  rating = rng.choice(N, C, p=[0.5, 0.45, 0.05])
  obs = rng.normal(size=(C, H, DS)) * [1, 10, 0.1, 1] + [0, 100, 0, -5]
  obs += rating[:, None, None] * 0.3
  action = np.tanh(rng.normal(size=(C, H, DA)) * [1, 0.01])
  usable = rng.random(C) < 0.8
  return obs, action, rating, usable


def _fit(options: RepulsionOptions, seed: int = 0) -> class_statistics.ClassStatistics:
  obs, action, rating, usable = _clips(seed)
  obs[~usable], action[~usable] = np.nan, np.nan  # Empty slots may hold anything.
  fit = jax.jit(class_statistics.fit, static_argnums=(0, 1))
  arrays = (jnp.float32(obs), jnp.float32(action), jnp.asarray(rating))
  return fit(options, N, jax.random.key(0), *arrays, jnp.asarray(usable))


@pytest.mark.parametrize('steps', ['all', 'first_step'])
def test_moments_match_numpy(steps: str) -> None:
  options = RepulsionOptions(statistics_steps=steps)
  stats = _fit(options)
  obs, action, rating, usable = _clips()
  flat = obs[usable].reshape(-1, DS)
  mean, std = flat.mean(0), flat.std(0)
  action_std = np.maximum(action[usable].reshape(-1, DA).std(0), 0.1)
  assert action_std[1] == 0.1
  np.testing.assert_allclose(stats.whitening.obs_std, std, rtol=1e-4)
  np.testing.assert_allclose(stats.whitening.action_std, action_std, rtol=1e-5)
  if steps == 'first_step':  # Of the Gaussians only: scales are those of all steps.
    obs, action = obs[:, :1], action[:, :1]
  x = np.concatenate([np.clip((obs - mean) / std, -5, 5), action / action_std], -1)
  groups = [rating == 0, rating == 1, rating == 2, rating <= 1]
  for row, group in enumerate(groups):
    group = group & usable
    assert stats.num_segments[row] == group.sum()
    assert stats.num_rows[row] == group.sum() * x.shape[1]
    assert stats.mask[row] == (group.sum() >= options.min_segments)
    if not stats.mask[row]:
      np.testing.assert_array_equal(stats.gaussian.chol[row], np.eye(DS + DA))
      continue
    rows = x[group].reshape(-1, DS + DA)
    cov = 0.9 * np.cov(rows.T, bias=True) + (0.1 + 1e-6) * np.eye(DS + DA)
    np.testing.assert_allclose(stats.gaussian.mean[row], rows.mean(0), atol=1e-4)
    chol = np.linalg.cholesky(cov)
    np.testing.assert_allclose(stats.gaussian.chol[row], chol, atol=1e-4)
  assert not stats.mask[2]
  assert stats.mask[3]


def test_no_ratings_at_all_give_closed_masks_and_no_nan() -> None:
  fit = jax.jit(class_statistics.fit, static_argnums=(0, 1))
  stats = fit(
    RepulsionOptions(kl_mode='heads_gaussian', kl_batch=8),
    N,
    jax.random.key(0),
    jnp.full((C, H, DS), jnp.nan),
    jnp.full((C, H, DA), jnp.nan),
    jnp.zeros(C, jnp.int32),
    jnp.zeros(C, bool),
  )
  assert not stats.mask.any()
  for leaf in jax.tree.leaves(stats):
    assert jnp.all(jnp.isfinite(leaf.astype(jnp.float32)))


def test_shuffled_labels_keep_counts_and_lose_the_classes() -> None:
  _, _, rating, usable = _clips()
  shuffled = np.asarray(
    class_statistics.shuffle_ratings(
      jax.random.key(1), jnp.asarray(rating), jnp.asarray(usable)
    )
  )
  np.testing.assert_array_equal(
    np.bincount(shuffled[usable], minlength=N), np.bincount(rating[usable], minlength=N)
  )
  assert (shuffled[usable] != rating[usable]).mean() > 0.3
  real, control = _fit(RepulsionOptions()), _fit(RepulsionOptions(shuffled_labels=True))

  def gap(stats: class_statistics.ClassStatistics) -> float:
    means = stats.gaussian.mean
    return float(jnp.linalg.norm(means[0, :DS] - means[1, :DS]))

  assert gap(real) > 3 * gap(control)
  jax.tree.map(np.testing.assert_array_equal, real.whitening, control.whitening)


def test_samples_of_a_class_come_from_it_uniformly() -> None:
  """Each step carries the number of its clip and its place in the clip."""
  clip = jnp.broadcast_to(jnp.arange(C)[:, None], (C, H))
  step = jnp.broadcast_to(jnp.arange(H), (C, H))
  obs = jnp.stack([clip, step], -1).astype(jnp.float32)
  member = jnp.stack([jnp.arange(C) % 3 == 1, jnp.zeros(C, bool)])
  drawn = class_statistics.draw_samples(jax.random.key(0), obs, obs, member, 6000)
  clips, steps = np.asarray(drawn.obs[0]).T.astype(int)
  assert set(clips % 3) == {1}
  np.testing.assert_array_equal(drawn.obs[0], drawn.action[0])
  counts = np.bincount(clips // 3 * H + steps, minlength=C // 3 * H)
  expected = 6000 / len(counts)
  statistic = ((counts - expected) ** 2 / expected).sum()
  # Chi-squared with 179 degrees of freedom: 5 standard deviations.
  assert abs(statistic - 179) < 5 * np.sqrt(2 * 179)
  assert np.isfinite(drawn.obs[1]).all()


def test_heads_are_the_ridge_regression_of_unsquashed_actions() -> None:
  options = RepulsionOptions(kl_mode='heads_gaussian', kl_batch=8)
  stats = _fit(options)
  obs, action, rating, usable = _clips()
  flat = obs[usable].reshape(-1, DS)
  state = np.clip((obs - flat.mean(0)) / flat.std(0), -5, 5)
  group = usable & (rating == 0)
  s = state[group].reshape(-1, DS)
  raw = np.arctanh(np.clip(action[group], -1 + HEAD_MARGIN, 1 - HEAD_MARGIN))
  raw = raw.reshape(-1, DA)
  sc, rc = s - s.mean(0), raw - raw.mean(0)
  ss = 0.9 * sc.T @ sc / len(s) + (0.1 + 1e-6) * np.eye(DS)
  gain = np.linalg.solve(ss, 0.9 * sc.T @ rc / len(s)).T
  residual = rc - sc @ gain.T
  assert stats.heads is not None
  np.testing.assert_allclose(stats.heads.gain[0], gain, atol=1e-4)
  offset = raw.mean(0) - gain @ s.mean(0)
  np.testing.assert_allclose(stats.heads.offset[0], offset, atol=1e-4)
  std = np.maximum(np.sqrt((residual**2).mean(0)), 0.1)
  np.testing.assert_allclose(stats.heads.log_std[0], np.log(std), atol=1e-3)


def test_disagreeing_shapes_are_refused() -> None:
  with pytest.raises(ValueError, match='share their clip and step axes'):
    class_statistics.fit(
      RepulsionOptions(),
      N,
      jax.random.key(0),
      jnp.zeros((5, 4, 3)),
      jnp.zeros((5, 3, 1)),
      jnp.zeros(5, jnp.int32),
      jnp.ones(5, bool),
    )
