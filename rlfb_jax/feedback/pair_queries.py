"""Which of the candidate pairs to ask about.

All choose by one signature, `(key, ensemble_r_hat, candidates, k, asked, wanted=None)
-> [k]`: indices into the candidates, none twice. `ensemble_r_hat(clip)` gives every
member's reward of every step, [K, P, H]; `wanted` is explained in `clip_queries`. A
member's logit is the difference of its sums over the two segments, as in the
Bradley-Terry loss that trained it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key
from rlfb_jax.feedback.answers import usable_labels
from rlfb_jax.feedback.clip_queries import (
  EnsembleReward,
  Strategy,
  Wanted,
  any_of,
  check_enough,
  eligible,
  highest,
)
from rlfb_jax.feedback.k_center import farthest_first
from rlfb_jax.feedback.pair_pool import CandidatePairs
from rlfb_jax.feedback.preference_store import PreferenceStore


class Asked(NamedTuple):
  """Pairs that have an answer, as k-center sees them.

  Attributes:
    centres: `pair_features` of each, [C, f].
    mask: which rows hold one, [C] bool.
  """

  centres: jax.Array
  mask: jax.Array


ChoosePairs = Callable[
  [Key, EnsembleReward, CandidatePairs, int, Asked, Wanted], jax.Array
]
Score = Callable[[jax.Array], jax.Array]


def pair_features(pair: CandidatePairs) -> jax.Array:
  """States of both segments in a row, without actions, [P, 2 H ds]."""
  sides = [x.obs.reshape(x.obs.shape[0], -1) for x in (pair.first, pair.second)]
  return jnp.concatenate(sides, axis=1)


def asked_so_far(store: PreferenceStore) -> Asked:
  """The context of a strategy, from all answers collected."""
  pairs = CandidatePairs(store.first, store.second)
  return Asked(pair_features(pairs), usable_labels(store))


def member_logits(
  ensemble_r_hat: EnsembleReward, candidates: CandidatePairs
) -> jax.Array:
  """log-odds of each member that the second segment is better, [K, P]."""
  first, second = (jnp.sum(ensemble_r_hat(clip), axis=-1) for clip in candidates)
  return second - first


def disagreement_score(logits: jax.Array) -> jax.Array:
  """Population std over members of P(second better), [K, P] -> [P]."""
  return jnp.std(jax.nn.sigmoid(logits), axis=0)


def entropy_score(logits: jax.Array) -> jax.Array:
  """Mean over members of each member's binary entropy in nats, [K, P] -> [P].

  Not the entropy of the mean, which would also be high where members are certain of
  opposite answers.
  """
  # The entropy is even in the logit, and near certainty only this side keeps digits.
  size = jnp.abs(logits)
  return jnp.mean(jnp.log1p(jnp.exp(-size)) + size * jax.nn.sigmoid(-size), axis=0)


def uniform(
  key: Key,
  ensemble_r_hat: EnsembleReward,
  candidates: CandidatePairs,
  k: int,
  asked: Asked,
  wanted: Wanted = None,
) -> jax.Array:
  """Any k, [k] int32. The first session always asks so: r_hat knows nothing yet."""
  del ensemble_r_hat, asked, wanted  # The first are as good as any.
  return any_of(key, candidates.size, k)


def _choosing(score: Score | None = None, *, spread: bool = False) -> ChoosePairs:
  """The highest scores, or pairs unlike those asked about before and each other.

  With both, k-center chooses from the better half.
  """

  def choose(
    key: Key,
    ensemble_r_hat: EnsembleReward,
    candidates: CandidatePairs,
    k: int,
    asked: Asked,
    wanted: Wanted = None,
  ) -> jax.Array:
    del key
    check_enough(candidates.size, k)
    count = eligible(candidates.size, k, wanted)
    if score is None:
      return farthest_first(pair_features(candidates), k, *asked, count)
    scores = score(member_logits(ensemble_r_hat, candidates))
    if not spread:
      return highest(scores, k, count)
    kept = highest(scores, max(k, candidates.size // 2), count)
    best = pair_features(jax.tree.map(lambda x: x[kept], candidates))
    least = k if wanted is None else wanted
    return kept[farthest_first(best, k, *asked, jnp.maximum(least, count // 2))]

  return choose


PAIR_STRATEGIES: Mapping[str, Strategy[ChoosePairs]] = MappingProxyType(
  {
    'uniform': Strategy(uniform, compares=False),
    'disagreement': Strategy(_choosing(disagreement_score)),
    'entropy': Strategy(_choosing(entropy_score)),
    'kcenter': Strategy(_choosing(spread=True)),
    'kcenter_disagreement': Strategy(_choosing(disagreement_score, spread=True)),
    'kcenter_entropy': Strategy(_choosing(entropy_score, spread=True)),
    # Hu et al. 2024 (QPA): what matters is where the candidates come from.
    'near_on_policy': Strategy(uniform, compares=False, recent_only=True),
  }
)
