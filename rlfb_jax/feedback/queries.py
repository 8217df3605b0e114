"""Which of the candidate clips to ask about.

Strategies share one signature, `(key, ensemble_r_hat, candidates, k) -> [k]`:
indices into the candidates, none twice. `ensemble_r_hat(clip)` gives every member's
reward of every step, [K, P, H].
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key
from rlfb_jax.feedback.clips import Clip

EnsembleReward = Callable[[Clip], jax.Array]
QueryStrategy = Callable[[Key, EnsembleReward, Clip, int], jax.Array]

SPREAD_FLOOR = 1e-6


def check_enough(size: int, k: int) -> None:
  """Raises ValueError where k cannot be chosen of so many candidates."""
  if k > size:
    raise ValueError(
      f'{k} queries cannot be chosen from {size} candidates; ask for at most {size}.'
    )


def any_of(key: Key, size: int, k: int) -> jax.Array:
  """Any k of so many candidates, [k] int32."""
  check_enough(size, k)
  return jax.random.permutation(key, size)[:k].astype(jnp.int32)


def uniform(
  key: Key, ensemble_r_hat: EnsembleReward, candidates: Clip, k: int
) -> jax.Array:
  """Any k, [k] int32. The first session always asks so: r_hat knows nothing yet."""
  del ensemble_r_hat
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


def highest(scores: jax.Array, k: int) -> jax.Array:
  """Indices of the k highest of [P] scores, [k] int32; not finite ones come last."""
  scores = jnp.where(jnp.isfinite(scores), scores, -jnp.inf)
  return jax.lax.top_k(scores, k)[1].astype(jnp.int32)


def _disagreement(normalise: bool) -> QueryStrategy:
  def choose(
    key: Key, ensemble_r_hat: EnsembleReward, candidates: Clip, k: int
  ) -> jax.Array:
    del key
    check_enough(candidates.size, k)
    returns = jnp.sum(ensemble_r_hat(candidates), axis=-1)
    # A segment that cannot be valued comes last, and does not decide how others rank.
    valued = jnp.all(jnp.isfinite(returns), axis=0)
    returns = jnp.where(valued, returns, returns[:, jnp.argmax(valued)][:, None])
    return highest(jnp.where(valued, member_spread(returns, normalise), -jnp.inf), k)

  return choose


disagreement = _disagreement(normalise=True)
disagreement_raw = _disagreement(normalise=False)

STRATEGIES: Mapping[str, QueryStrategy] = MappingProxyType(
  {
    'uniform': uniform,
    'disagreement': disagreement,  # on min-max normalised returns
    'disagreement_raw': disagreement_raw,  # on plain sums, as in the public code
  }
)


def pool_size(strategy: str, k: int, large_batch: int) -> int:
  """Candidates to draw for k queries: `large_batch` times k where one can choose."""
  return k if strategy == 'uniform' else k * large_batch
