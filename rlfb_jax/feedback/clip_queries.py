"""Which of the candidate clips to ask about.

All choose by one signature, `(key, ensemble_r_hat, candidates, k, wanted=None) -> [k]`:
indices into the candidates, none twice. `ensemble_r_hat(clip)` gives every member's
reward of every step, [K, P, H].

Sessions of a run differ in size and share their program. `k` is the largest size,
`wanted` [] the session's own, at least 1: the first so many indices are asked about,
and they are chosen among as many candidates a query as the largest session has (see
`eligible`). None: all k are wanted.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key
from rlfb_jax.feedback.clips import Clip

# `clip -> what every member says of every step`, [K, B, H].
EnsembleReward = Callable[[Clip], jax.Array]
Wanted = jax.Array | int | None
ChooseClips = Callable[[Key, EnsembleReward, Clip, int, Wanted], jax.Array]
Choose = TypeVar('Choose', bound=Callable[..., jax.Array])

SPREAD_FLOOR = 1e-6


class Strategy(NamedTuple, Generic[Choose]):
  """How queries are drawn, and chosen from what was drawn.

  Attributes:
    choose: which of the candidates to ask about.
    compares: whether it compares candidates. One that takes any of them has no use
      for more than are asked about.
    recent_only: whether candidates come from the newest episodes only.
  """

  choose: Choose
  compares: bool = True
  recent_only: bool = False

  def pool_size(self, k: int, large_batch: int) -> int:
    """Candidates to draw for k queries: `large_batch` for each if they are compared."""
    return k * large_batch if self.compares else k


def check_enough(size: int, k: int) -> None:
  """Raises ValueError where k cannot be chosen of so many candidates."""
  if k > size:
    raise ValueError(
      f'{k} queries cannot be chosen from {size} candidates; ask for at most {size}.'
    )


def eligible(size: int, k: int, wanted: Wanted) -> jax.Array | int:
  """How many of the candidates a session chooses from; they come first.

  Args:
    size: candidates for k queries, P.
    k: of the largest session.
    wanted: of this one.
  """
  return size if wanted is None else wanted * (size // k)


def any_of(key: Key, size: int, k: int) -> jax.Array:
  """Any k of so many candidates, [k] int32."""
  check_enough(size, k)
  return jax.random.permutation(key, size)[:k].astype(jnp.int32)


def uniform(
  key: Key,
  ensemble_r_hat: EnsembleReward,
  candidates: Clip,
  k: int,
  wanted: Wanted = None,
) -> jax.Array:
  """Any k, [k] int32. The first session always asks so: r_hat knows nothing yet."""
  del ensemble_r_hat, wanted  # The first are as good as any.
  return any_of(key, candidates.size, k)


def member_spread(returns: jax.Array, normalise: bool) -> jax.Array:
  """How much the members disagree on each segment, [K, P] -> [P].

  Args:
    returns: predicted return of each segment by each member.
    normalise: map each member's returns over the candidates to [0, 1] first. The
      rating loss fixes a member only up to a positive affine map, so raw returns
      would compare arbitrary scales.

  Returns:
    Population standard deviation over members.
  """
  if normalise:
    low = jnp.min(returns, axis=1, keepdims=True)
    high = jnp.max(returns, axis=1, keepdims=True)
    returns = (returns - low) / (high - low + SPREAD_FLOOR)
  return jnp.std(returns, axis=0)


def highest(scores: jax.Array, k: int, count: jax.Array | int) -> jax.Array:
  """Indices of the k highest of the first `count` scores, [k] int32.

  Scores that are not finite come behind them, those from `count` on last.

  Args:
    scores: [P].
    k: how many, at most P.
    count: [], at most P.
  """
  valued = jnp.isfinite(scores) & (jnp.arange(scores.shape[0]) < count)
  # Of equal ones the earlier comes first.
  scores = jnp.where(valued, scores, -jnp.inf)
  return jax.lax.top_k(scores, k)[1].astype(jnp.int32)


def _disagreement(normalise: bool) -> ChooseClips:
  def choose(
    key: Key,
    ensemble_r_hat: EnsembleReward,
    candidates: Clip,
    k: int,
    wanted: Wanted = None,
  ) -> jax.Array:
    del key
    check_enough(candidates.size, k)
    count = eligible(candidates.size, k, wanted)
    returns = jnp.sum(ensemble_r_hat(candidates), axis=-1)
    # A segment that cannot be valued or may not be chosen comes last, and does not
    # decide how others rank.
    valued = jnp.all(jnp.isfinite(returns), axis=0)
    valued &= jnp.arange(candidates.size) < count
    returns = jnp.where(valued, returns, returns[:, jnp.argmax(valued)][:, None])
    spread = jnp.where(valued, member_spread(returns, normalise), -jnp.inf)
    return highest(spread, k, count)

  return choose


CLIP_STRATEGIES: Mapping[str, Strategy[ChooseClips]] = MappingProxyType(
  {
    'uniform': Strategy(uniform, compares=False),
    # On min-max normalised returns; raw: on plain sums, as in the public code.
    'disagreement': Strategy(_disagreement(normalise=True)),
    'disagreement_raw': Strategy(_disagreement(normalise=False)),
  }
)
