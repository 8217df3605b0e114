"""Metrics of the learned reward: its returns, and its order of unseen clips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rlfb_jax.envs.base import first_state
from rlfb_jax.feedback.archive import ArchivedSteps, append, init_archive
from rlfb_jax.methods.collect import Experience, init_clock, track_episodes
from rlfb_jax.methods.reward_quality import (
  held_out_quality,
  pair_accuracy,
  rank_correlation,
)


@pytest.mark.parametrize('levels', [1000, 4])
def test_orders_are_compared_as_scipy_does(levels):
  rng = np.random.default_rng(levels)
  true = rng.integers(0, levels, 40).astype(np.float32)
  predicted = np.round(true + levels * rng.normal(size=40)).astype(np.float32)
  expected = stats.spearmanr(predicted, true).statistic
  np.testing.assert_allclose(rank_correlation(predicted, true), expected, atol=1e-5)
  right, pairs = 0.0, 0
  for i in range(40):
    for j in range(40):
      if true[i] > true[j]:
        pairs += 1
        right += (predicted[i] > predicted[j]) + 0.5 * (predicted[i] == predicted[j])
  np.testing.assert_allclose(pair_accuracy(predicted, true), right / pairs, rtol=1e-5)


def test_where_nothing_can_be_ordered_there_is_no_accuracy():
  assert np.isnan(pair_accuracy(jnp.arange(3.0), jnp.ones(3)))
  np.testing.assert_allclose(pair_accuracy(jnp.ones(3), jnp.arange(3.0)), 0.5)


def test_a_reward_that_is_the_truth_orders_all_clips_and_its_opposite_none():
  obs = np.random.default_rng(0).normal(size=(20, 3, 1)).astype(np.float32)
  archive = init_archive(40, 20, 3, 1, 1, 1)
  steps = jnp.int32(7)

  def quality(archive, sign):
    return held_out_quality(archive, lambda c: sign * c.obs[..., 0], 4, steps, 16)

  assert all(np.isnan(v) for v in quality(archive, 1.0).values())
  rollout = ArchivedSteps(obs, obs, obs, obs[..., 0], np.zeros((20, 3), bool))
  archive = append(archive, rollout)
  for sign, accuracy in ((1.0, 1.0), (-1.0, 0.0)):
    seen = quality(archive, sign)
    np.testing.assert_allclose(seen['held_out_accuracy'], accuracy)
    np.testing.assert_allclose(seen['held_out_rank_correlation'], sign, rtol=1e-5)


def test_learned_returns_are_those_of_the_episodes_that_it_paid_throughout():
  rng = np.random.default_rng(1)
  reward, pay = rng.normal(size=(2, 3, 6, 2)).astype(np.float32)
  done = rng.random((3, 6, 2)) < 0.4
  paid_chunks = (False, True, True)

  def experience(c):
    nothing = jnp.zeros((6, 2, 1))
    return Experience(
      obs=nothing,
      action=nothing,
      pose=nothing,
      final_obs=nothing,
      terminated=jnp.zeros((6, 2), bool),
      truncated=jnp.asarray(done[c]),
      env_reward=jnp.asarray(reward[c]),
      teacher_reward=jnp.asarray(reward[c]),
      success=None,
    )

  nothing = jnp.zeros((2, 1))
  clock = init_clock(first_state(jax.random.key(0), nothing, nothing))
  running, learned, paid = np.zeros(2), np.zeros(2), [True, True]
  for c, is_paid in enumerate(paid_chunks):
    clock, metrics = track_episodes(clock, experience(c), pay[c] if is_paid else None)
    true, said = [], []
    for t in range(6):
      for n in range(2):
        running[n] += reward[c, t, n]
        learned[n] += pay[c, t, n]
        paid[n] = paid[n] and is_paid
        if done[c, t, n]:
          true.append(running[n])
          if paid[n]:
            said.append(learned[n])
          running[n], learned[n], paid[n] = 0.0, 0.0, True
    assert true
    np.testing.assert_allclose(metrics['episode_return'], np.mean(true), rtol=1e-4)
    assert metrics['episodes'] == len(true)
    assert ('learned_return' in metrics) == is_paid
    if is_paid:
      assert len(said) > 0
      np.testing.assert_allclose(metrics['learned_return'], np.mean(said), rtol=1e-4)
