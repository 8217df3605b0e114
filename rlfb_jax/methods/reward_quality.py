"""How good the learned reward is on behaviour that nobody has judged.

Clips are drawn afresh from all behaviour that is remembered, so that next to none of
their pairs has ever been shown to anybody, and what the agent is paid for them is
held against what the teacher would judge by. Metrics alone see the result.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Metrics
from rlfb_jax.feedback import archive as archive_lib
from rlfb_jax.feedback.archive import Archive
from rlfb_jax.feedback.clips import Clip
from rlfb_jax.methods.collect import correlation

HELD_OUT_SEGMENTS = 128
_KEY = 20_251_124


def held_out_quality(
  archive: Archive,
  reward: Callable[[Clip], jax.Array],
  segment_steps: int,
  env_steps: jax.Array,
  num_segments: int = HELD_OUT_SEGMENTS,
) -> Metrics:
  """Compares learned and true returns of fresh clips.

  Looking at a run must not change it: the draw depends on nothing but the clock.

  Args:
    archive: behaviour, with the rewards that the teacher judges by.
    reward: what the agent is paid, `clip [M, H, ...] -> [M, H]`.
    segment_steps: H.
    env_steps: the clock, [] int32.
    num_segments: M.

  Returns:
    `held_out_accuracy` and `held_out_rank_correlation`, see `pair_accuracy` and
    `rank_correlation`, each []; NaN where the archive holds no clip.
  """
  key = jax.random.fold_in(jax.random.key(_KEY), env_steps)
  index = archive_lib.sample(key, archive, num_segments, segment_steps)
  clip, rewards = archive_lib.gather(archive, index, segment_steps)
  true, learned = jnp.sum(rewards, axis=1), jnp.sum(reward(clip), axis=1)
  exists = jnp.all(index.valid)
  return {
    'held_out_accuracy': jnp.where(exists, pair_accuracy(learned, true), jnp.nan),
    'held_out_rank_correlation': jnp.where(
      exists, rank_correlation(learned, true), jnp.nan
    ),
  }


def pair_accuracy(predicted: jax.Array, true: jax.Array) -> jax.Array:
  """Share of all pairs that a prediction puts in their true order, [].

  Pairs that are truly equal do not count; where the prediction is equal it is right
  half of the time. NaN where all are truly equal.

  Args:
    predicted: [M].
    true: [M].
  """
  ahead = true[:, None] > true
  gain = predicted[:, None] - predicted
  right = jnp.where(gain == 0, 0.5, (gain > 0).astype(jnp.float32))
  return jnp.sum(jnp.where(ahead, right, 0.0)) / jnp.sum(ahead)


def rank_correlation(x: jax.Array, y: jax.Array) -> jax.Array:
  """Spearman's correlation of [M] and [M], equal values sharing their mean rank, [].

  0 where one of them is constant.
  """
  return correlation(_ranks(x), _ranks(y))


def _ranks(x: jax.Array) -> jax.Array:
  below = jnp.sum(x[:, None] > x, axis=1).astype(jnp.float32)
  return below + 0.5 * jnp.sum(x[:, None] == x, axis=1)
