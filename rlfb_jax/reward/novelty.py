"""The state-entropy reward of a batch drawn from replay.

As `state_entropy`, which pays for a rollout once: here every gradient step measures
its batch against all that was seen by then (B-Pref's `agent/sac.py`,
`update_critic_state_ent`).
"""

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.core.normalization import (
  RunningStatistics,
  init_statistics,
  update_statistics,
)
from rlfb_jax.reward.state_entropy import STD_FLOOR, knn_distances


class Novelty(flax.struct.PyTreeNode):
  """Running statistics of the distances, vectors of size 1."""

  statistics: RunningStatistics


def init_novelty() -> Novelty:
  """No distance measured yet."""
  return Novelty(statistics=init_statistics(1))


def novelty_reward(
  state: Novelty, obs: jax.Array, seen: jax.Array, filled: jax.Array, k: int
) -> tuple[Novelty, jax.Array]:
  """Distance to the k-th nearest neighbour over the running deviation of distances.

  The batch is part of what was seen, so that the nearest point is the state itself.
  The statistics take in the batch before they divide it; no mean is subtracted and
  no logarithm taken. (The public code's running mean drifts by an error in its
  merge; ours is exact.)

  Args:
    state: the scale so far.
    obs: raw observations, [B, ds].
    seen: raw observations, filled from the front, [M, ds].
    filled: how many rows of `seen` are held, [] int32; more than M counts as M.
    k: which neighbour, the state itself not counted.

  Returns:
    The new state and the rewards, [B].
  """
  ages = jnp.where(jnp.arange(seen.shape[0]) < filled, 0, 2).astype(jnp.int32)
  limits = jnp.ones(obs.shape[0], jnp.int32)
  distances = knn_distances(obs, limits, seen, ages, k)
  statistics = update_statistics(state.statistics, distances[:, None])
  std = statistics.std[0]
  scale = jnp.where(std > STD_FLOOR, std, 1.0)
  return Novelty(statistics=statistics), distances / scale
