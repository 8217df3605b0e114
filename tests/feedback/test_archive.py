import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.feedback import archive as archives
from rlfb_jax.feedback.archive import ArchivedSteps

L, T, N, H = 12, 4, 3, 3
append = jax.jit(lambda archive, new: archives.append(archive, new))
sample = jax.jit(archives.sample, static_argnums=(2, 3, 4))
gather = jax.jit(archives.gather, static_argnums=2)


def rollout(first_step, done=None, num_envs=N):
  """Steps whose every field carries 100 env + step."""
  ids = 100.0 * jnp.arange(num_envs) + jnp.arange(first_step, first_step + T)[:, None]
  return ArchivedSteps(
    obs=ids[..., None] + jnp.array([0.0, 0.25]),
    action=ids[..., None],
    pose=-ids[..., None] * jnp.ones(3),
    env_reward=ids,
    done=jnp.zeros((T, num_envs), bool) if done is None else done,
  )


def filled(num_rollouts, dones=()):
  """An archive after rollouts with ends at the (step, env) pairs of `dones`."""
  archive = archives.init_archive(L, T, N, 2, 1, 3)
  for i in range(num_rollouts):
    done = np.zeros((T, N), bool)
    for step, env in dones:
      if i * T <= step < (i + 1) * T:
        done[step - i * T, env] = True
    archive = append(archive, rollout(i * T, jnp.asarray(done)))
  return archive


def expected_starts(num_steps, dones):
  """All (first id) of segments by brute force."""
  oldest = max(0, num_steps - L)
  found = set()
  for env in range(N):
    for start in range(oldest, num_steps - H + 1):
      inner = range(start, start + H - 1)
      if not any((t, env) in dones for t in inner):
        found.add(100 * env + start)
  return found


@pytest.mark.parametrize('num_rollouts', [1, 2, 3, 5])
@pytest.mark.parametrize('dones', [(), ((1, 0), (2, 1), (6, 2), (15, 0), (16, 1))])
def test_samples_are_contiguous_and_uniform_over_all_segments(num_rollouts, dones):
  archive = filled(num_rollouts, dones)
  want = expected_starts(num_rollouts * T, dones)
  index = sample(jax.random.key(0), archive, 3000, H)
  clip, rewards = gather(archive, index, H)
  rewards = np.asarray(rewards)
  assert np.all(np.asarray(index.valid))
  # All fields moved together, in consecutive steps of one environment.
  np.testing.assert_array_equal(rewards, rewards[:, :1] + np.arange(H))
  np.testing.assert_array_equal(clip.obs[..., 0], rewards)
  np.testing.assert_array_equal(clip.obs[..., 1], rewards + 0.25)
  np.testing.assert_array_equal(clip.action[..., 0], rewards)
  np.testing.assert_array_equal(clip.pose, -rewards[..., None] * np.ones(3))
  firsts, counts = np.unique(rewards[:, 0].astype(int), return_counts=True)
  assert set(firsts) == want
  # Chi-square against uniform: mean m - 1, std sqrt(2 (m - 1)).
  m = len(want)
  chi2 = np.sum((counts - 3000 / m) ** 2) / (3000 / m)
  assert chi2 < (m - 1) + 4 * np.sqrt(2 * (m - 1))


def test_empty_or_too_short_archive_says_so():
  archive = filled(0)
  index = sample(jax.random.key(0), archive, 5, H)
  assert not np.any(np.asarray(index.valid))
  every_step = tuple((t, e) for t in range(T) for e in range(N))
  index = sample(jax.random.key(0), filled(1, every_step), 5, H)
  assert not np.any(np.asarray(index.valid))
  # A segment may end with its episode.
  assert np.any(np.asarray(archives.valid_starts(filled(1, ((2, 0),)), H)[0, 0]))


def test_recent_segments_lie_within_the_newest_steps():
  dones = ((6, 2), (13, 0))
  for num_rollouts in (1, 2, 4):
    archive = filled(num_rollouts, dones)
    for recent in (H, 5, L, 100):
      index = sample(jax.random.key(0), archive, 300, H, recent)
      newest = max(0, num_rollouts * T - recent)
      want = {i for i in expected_starts(num_rollouts * T, dones) if i % 100 >= newest}
      firsts = gather(archive, index, H)[1][:, 0]
      assert {int(x) for x in firsts} == want
      assert np.all(np.asarray(index.valid))
  # Episodes so short that none of the newest steps form a segment.
  every_step = tuple((t, e) for t in range(T, 2 * T) for e in range(N))
  index = sample(jax.random.key(0), filled(2, every_step), 5, H, H + 1)
  assert not np.any(np.asarray(index.valid))
  with pytest.raises(ValueError, match=r'recent=2 .* segment_steps=3; try 3'):
    archives.sample(jax.random.key(0), archive, 1, H, H - 1)


def test_append_overwrites_the_oldest_rollout_in_one_program():
  archive = archives.init_archive(L, T, N, 2, 1, 3)
  for i in range(7):
    archive = append(archive, rollout(i * T))
    assert int(archive.filled) == min(L, (i + 1) * T)
    newest = archives.latest(archive, min(L, (i + 1) * T))
    ends = (i + 1) * T
    np.testing.assert_array_equal(
      newest.env_reward[:, 0], np.arange(max(0, ends - L), ends)
    )
  assert append._cache_size() == 1


def test_seeds_are_an_axis():
  @jax.jit
  def run(key, shift):
    archive = archives.init_archive(L, T, N, 2, 1, 3)
    new = rollout(0)
    archive = archives.append(archive, new.replace(env_reward=new.env_reward + shift))
    index = archives.sample(key, archive, 4, H)
    return archives.gather(archive, index, H)[1]

  keys = jax.random.split(jax.random.key(3), 2)
  shifts = jnp.array([0.0, 1000.0])
  both = jax.jit(jax.vmap(run))(keys, shifts)
  for i in range(2):
    np.testing.assert_array_equal(both[i], run(keys[i], shifts[i]))


def test_memory_is_what_is_allocated():
  archive = archives.init_archive(L, T, N, 2, 1, 3)
  held = sum(x.nbytes for x in jax.tree.leaves(archive.steps))
  assert archives.memory_bytes(L, N, 2, 1, 3) == held


def test_refusals():
  with pytest.raises(ValueError, match=r'length=10 .* rollout_steps=4; try 12'):
    archives.init_archive(10, 4, N, 2, 1, 3)
  archive = filled(1)
  with pytest.raises(ValueError, match=r'\(4, 3\), got \(4, 2\)'):
    archives.append(archive, rollout(0, num_envs=2))
  with pytest.raises(ValueError, match='segment_steps=13'):
    archives.sample(jax.random.key(0), archive, 1, L + 1)
  with pytest.raises(ValueError, match='num_steps=13'):
    archives.latest(archive, L + 1)
