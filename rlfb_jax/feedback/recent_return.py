"""What recent episodes earned: the scale of a scripted teacher's thresholds."""

import jax
import jax.numpy as jnp

from rlfb_jax.feedback.archive import Archive, ring_index

# B-Pref's `reward_model.py`: thresholds follow the last so many episodes. (Its PrefPPO
# takes up to 100; thresholds of all methods mean the same here.)
_EPISODES = 10


def mean_segment_return(archive: Archive, segment_steps: int) -> jax.Array:
  """True return of an average segment of recent episodes, [].

  Args:
    archive: what the agent did.
    segment_steps: H.
  """
  return segment_steps * mean_recent_reward(archive, _EPISODES)


def mean_recent_reward(archive: Archive, num_episodes: int) -> jax.Array:
  """Mean true reward per step of the episodes that finished last, [].

  Times H this is the return of an average segment, the scale of a scripted teacher's
  thresholds (B-Pref: the mean return of ten episodes times H / T). Episodes that
  ended together with the last that counts all count. Of an episode whose start was
  overwritten the steps that are left count. While no episode has finished, all steps
  held do; 0 where there are none. Rewards that are not finite are passed over.

  Args:
    archive: what the agent did.
    num_episodes: how many, summed over environments, at least 1.
  """
  length, num_envs = archive.steps.done.shape
  rows = ring_index(archive, jnp.arange(length))
  done, reward = archive.steps.done[rows], archive.steps.env_reward[rows]
  times = jnp.arange(length, dtype=jnp.int32)
  # When the episode of each step ends; `length` while it is running.
  end = jax.lax.cummin(jnp.where(done, times[:, None], length), axis=0, reverse=True)
  ends = jnp.sum(done, axis=1, dtype=jnp.int32)
  later = jnp.cumsum(ends[::-1])[::-1] - ends
  counted = (ends > 0) & (later < num_episodes)
  earliest = jnp.min(jnp.where(counted, times, length))
  recent = (end < length) & (end >= earliest)
  held = jnp.broadcast_to((times < archive.filled)[:, None], (length, num_envs))
  weight = jnp.where(jnp.any(recent), recent, held) & jnp.isfinite(reward)
  total = jnp.sum(weight, dtype=jnp.int32)
  return jnp.sum(jnp.where(weight, reward, 0.0)) / jnp.maximum(total, 1)
