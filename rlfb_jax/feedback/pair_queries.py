"""Which of the candidate pairs to ask about.

Strategies share one signature, `(key, ensemble_r_hat, candidates, k, asked,
wanted=None) -> [k]`: indices into the candidates, none twice. `ensemble_r_hat(clip)`
gives every member's reward of every step, [K, P, H]; `wanted` is explained in
`queries`. A member's logit is the difference of its sums over
the two segments, as in the Bradley-Terry loss that trained it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key
from rlfb_jax.feedback.k_center import farthest_first
from rlfb_jax.feedback.pairs import Candidates
from rlfb_jax.feedback.preferences import PreferenceStore
from rlfb_jax.feedback.queries import (
  EnsembleReward,
  Wanted,
  any_of,
  check_enough,
  eligible,
  highest,
)
from rlfb_jax.feedback.rows import usable_labels


class Asked(NamedTuple):
  """Pairs that have an answer, as k-center sees them.

  Attributes:
    centres: `pair_features` of each, [C, f].
    mask: which rows hold one, [C] bool.
  """

  centres: jax.Array
  mask: jax.Array


PairStrategy = Callable[..., jax.Array]
Score = Callable[[jax.Array], jax.Array]


def pair_features(pair: Candidates) -> jax.Array:
  """States of both segments in a row, without actions, [P, 2 H ds]."""
  sides = [x.obs.reshape(x.obs.shape[0], -1) for x in (pair.first, pair.second)]
  return jnp.concatenate(sides, axis=1)


def asked_so_far(store: PreferenceStore) -> Asked:
  """The context of a strategy, from all answers collected."""
  pairs = Candidates(store.first, store.second)
  return Asked(pair_features(pairs), usable_labels(store))


def member_logits(ensemble_r_hat: EnsembleReward, candidates: Candidates) -> jax.Array:
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
  candidates: Candidates,
  k: int,
  asked: Asked,
  wanted: Wanted = None,
) -> jax.Array:
  """Any k, [k] int32. The first session always asks so: r_hat knows nothing yet."""
  del ensemble_r_hat, asked, wanted  # The first are as good as any.
  return any_of(key, candidates.size, k)


def _by_score(score: Score) -> PairStrategy:
  def choose(
    key: Key,
    ensemble_r_hat: EnsembleReward,
    candidates: Candidates,
    k: int,
    asked: Asked,
    wanted: Wanted = None,
  ) -> jax.Array:
    del key, asked
    check_enough(candidates.size, k)
    scores = score(member_logits(ensemble_r_hat, candidates))
    return highest(scores, k, eligible(candidates.size, k, wanted))

  return choose


def k_center(
  key: Key,
  ensemble_r_hat: EnsembleReward,
  candidates: Candidates,
  k: int,
  asked: Asked,
  wanted: Wanted = None,
) -> jax.Array:
  """Pairs unlike those asked about before and unlike each other, [k] int32."""
  del key, ensemble_r_hat
  check_enough(candidates.size, k)
  count = eligible(candidates.size, k, wanted)
  return farthest_first(pair_features(candidates), k, *asked, count)


def _k_center_among_best(score: Score) -> PairStrategy:
  def choose(
    key: Key,
    ensemble_r_hat: EnsembleReward,
    candidates: Candidates,
    k: int,
    asked: Asked,
    wanted: Wanted = None,
  ) -> jax.Array:
    del key
    check_enough(candidates.size, k)
    scores = score(member_logits(ensemble_r_hat, candidates))
    count = eligible(candidates.size, k, wanted)
    half = max(k, candidates.size // 2)
    kept = highest(scores, half, count)
    best = pair_features(jax.tree.map(lambda x: x[kept], candidates))
    least = k if wanted is None else wanted
    return kept[farthest_first(best, k, *asked, jnp.maximum(least, count // 2))]

  return choose


PAIR_STRATEGIES: Mapping[str, PairStrategy] = MappingProxyType(
  {
    'uniform': uniform,
    'disagreement': _by_score(disagreement_score),
    'entropy': _by_score(entropy_score),
    'kcenter': k_center,
    'kcenter_disagreement': _k_center_among_best(disagreement_score),
    'kcenter_entropy': _k_center_among_best(entropy_score),
    # Hu et al. 2024 (QPA): what matters is where the candidates come from.
    'near_on_policy': uniform,
  }
)


def recent_only(strategy: str) -> bool:
  """Whether candidates come from the newest episodes only."""
  return strategy == 'near_on_policy'
