"""Which of the candidate pairs to ask about.

Strategies share one signature, `(key, ensemble_r_hat, candidates, k, asked) -> [k]`:
indices into the candidates, none twice. `ensemble_r_hat(clip)` gives every member's
reward of every step, [K, P, H]. A member's logit is the difference of its sums over
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
from rlfb_jax.feedback.queries import EnsembleReward, any_of, check_enough, highest
from rlfb_jax.feedback.rows import usable_labels


class Asked(NamedTuple):
  """Pairs that have an answer, as k-center sees them.

  Attributes:
    centres: `pair_features` of each, [C, f].
    mask: which rows hold one, [C] bool.
  """

  centres: jax.Array
  mask: jax.Array


PairStrategy = Callable[[Key, EnsembleReward, Candidates, int, Asked], jax.Array]
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
  key: Key, ensemble_r_hat: EnsembleReward, candidates: Candidates, k: int, asked: Asked
) -> jax.Array:
  """Any k, [k] int32. The first session always asks so: r_hat knows nothing yet."""
  del ensemble_r_hat, asked
  return any_of(key, candidates.size, k)


def _best(
  score: Score, ensemble_r_hat: EnsembleReward, candidates: Candidates, k: int
) -> jax.Array:
  """The k candidates of the highest score; those that have none come last."""
  return highest(score(member_logits(ensemble_r_hat, candidates)), k)


def _by_score(score: Score) -> PairStrategy:
  def choose(
    key: Key,
    ensemble_r_hat: EnsembleReward,
    candidates: Candidates,
    k: int,
    asked: Asked,
  ) -> jax.Array:
    del key, asked
    check_enough(candidates.size, k)
    return _best(score, ensemble_r_hat, candidates, k)

  return choose


def k_center(
  key: Key, ensemble_r_hat: EnsembleReward, candidates: Candidates, k: int, asked: Asked
) -> jax.Array:
  """Pairs unlike those asked about before and unlike each other, [k] int32."""
  del key, ensemble_r_hat
  check_enough(candidates.size, k)
  return farthest_first(pair_features(candidates), k, asked.centres, asked.mask)


def _k_center_among_best(score: Score) -> PairStrategy:
  def choose(
    key: Key,
    ensemble_r_hat: EnsembleReward,
    candidates: Candidates,
    k: int,
    asked: Asked,
  ) -> jax.Array:
    check_enough(candidates.size, k)
    half = max(k, candidates.size // 2)
    kept = _best(score, ensemble_r_hat, candidates, half)
    best = jax.tree.map(lambda x: x[kept], candidates)
    return kept[k_center(key, ensemble_r_hat, best, k, asked)]

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


def pool_size(strategy: str, k: int, large_batch: int) -> int:
  """Candidates to draw for k queries: `large_batch` times k where one can choose."""
  return k if PAIR_STRATEGIES[strategy] is uniform else k * large_batch


def recent_only(strategy: str) -> bool:
  """Whether candidates come from the newest episodes only."""
  return strategy == 'near_on_policy'
