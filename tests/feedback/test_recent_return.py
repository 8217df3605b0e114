import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.feedback import archive as archives
from rlfb_jax.feedback.recent_return import mean_recent_reward

L, T, N = 12, 4, 3
RNG = np.random.default_rng(0)
REWARDS = RNG.uniform(-1, 2, size=(6 * T, N)).astype(np.float32)
# (step, env): ends together, an episode of one step, one longer than the ring.
ENDS = {(2, 0), (5, 0), (5, 1), (9, 0), (10, 0), (13, 1), (17, 0), (17, 1), (20, 2)}
append = jax.jit(archives.append)
mean = jax.jit(mean_recent_reward, static_argnames='num_episodes')


def filled(num_rollouts, ends):
  archive = archives.init_archive(L, T, N, 1, 1, 1)
  done = np.zeros(REWARDS.shape, bool)
  for end in ends:
    done[end] = True
  for i in range(num_rollouts):
    steps = slice(i * T, (i + 1) * T)
    nothing = jnp.zeros((T, N, 1))
    archive = append(
      archive,
      archives.ArchivedSteps(
        nothing, nothing, nothing, jnp.asarray(REWARDS[steps]), jnp.asarray(done[steps])
      ),
    )
  return archive


def expected(num_rollouts, ends, num_episodes):
  """Episode by episode: (end, rewards held), newest first."""
  now, oldest = num_rollouts * T, max(0, num_rollouts * T - L)
  episodes = []
  for env in range(N):
    start = oldest
    for t in range(oldest, now):
      if (t, env) in ends:
        episodes.append((t, REWARDS[start : t + 1, env].tolist()))
        start = t + 1
  if not episodes:
    held = REWARDS[oldest:now]
    return held.mean(dtype=np.float64) if held.size else 0.0
  episodes.sort(key=lambda e: -e[0])
  last = episodes[min(num_episodes, len(episodes)) - 1][0]
  counted = [r for t, rewards in episodes if t >= last for r in rewards]
  return np.mean(counted, dtype=np.float64)


@pytest.mark.parametrize('num_rollouts', range(7))
def test_mean_over_the_last_finished_episodes(num_rollouts):
  archive = filled(num_rollouts, ENDS)
  for num_episodes in (1, 2, 3, 5, 50):
    got = mean(archive, num_episodes=num_episodes)
    want = expected(num_rollouts, ENDS, num_episodes)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('num_rollouts', [0, 2, 5])
def test_all_steps_held_while_no_episode_has_finished(num_rollouts):
  # An end that was overwritten does not count.
  archive = filled(num_rollouts, {(0, 1)} if num_rollouts == 5 else set())
  want = expected(num_rollouts, set(), 10)
  np.testing.assert_allclose(mean(archive, num_episodes=10), want, rtol=1e-5)


def test_broken_rewards_are_passed_over():
  archive = filled(2, {(5, 0)})
  ring = archive.steps.env_reward.at[2, 0].set(jnp.nan)
  broken = archive.replace(steps=archive.steps.replace(env_reward=ring))
  want = REWARDS[[0, 1, 3, 4, 5], 0].mean(dtype=np.float64)
  np.testing.assert_allclose(mean(broken, num_episodes=1), want, rtol=1e-5)


def test_seeds_are_an_axis():
  archives_of_seeds = [filled(4, ENDS), filled(4, {(13, 2)})]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *archives_of_seeds)
  both = jax.jit(jax.vmap(lambda a: mean_recent_reward(a, 2)))(stacked)
  for got, archive in zip(both, archives_of_seeds, strict=True):
    np.testing.assert_allclose(got, mean(archive, num_episodes=2), rtol=1e-6)
