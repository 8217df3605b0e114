"""How far the critics are from what the policy truly earns.

The metric of MRN's Table 1 (Liu et al. 2022): the squared difference between learned
Q values and Monte-Carlo returns of the true reward. The paper gives no code. A learned
reward knows neither the scale nor the offset of the true one, so both sides are
standardised here. The raw error beside it means something on the true reward only, and
for SAC not quite even there: its values are soft and of the policy that explores.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import Environment, EnvState
from rlfb_jax.training.evaluate import Act, Episodes, play

QValues = Callable[[Any, jax.Array, jax.Array], jax.Array]
# Share of a return that may be cut off at the end of an episode.
TAIL = 0.01


class QError(NamedTuple):
  """Attributes: standardised and raw mean squared error, and the correlation, []."""

  standardised: jax.Array
  raw: jax.Array
  correlation: jax.Array


def discounted_returns(
  rewards: jax.Array, ends: jax.Array, discount: float
) -> jax.Array:
  """Sum of discounted rewards from each step to the end of its episode, [T, N].

  Args:
    rewards: [T, N].
    ends: the episode ended for good after this step, [T, N] bool.
    discount: gamma.
  """

  def backwards(
    later: jax.Array, step: tuple[jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array]:
    reward, end = step
    total = reward + discount * jnp.where(end, 0.0, later)
    return total, total

  _, totals = jax.lax.scan(
    backwards, jnp.zeros_like(rewards[0]), (rewards, ends), reverse=True
  )
  return totals


def steps_with_whole_return(episode_length: int, discount: float) -> int:
  """First steps of an episode whose return lacks at most `TAIL` of its weight.

  At least half of the episode, where it is short.
  """
  horizon = 0
  while discount**horizon > TAIL and horizon < episode_length // 2:
    horizon += 1
  return max(1, episode_length - horizon)


def q_error(q: jax.Array, returns: jax.Array) -> QError:
  """Compares values with returns over all entries; both [...]."""

  def standardise(x: jax.Array) -> jax.Array:
    return (x - jnp.mean(x)) / jnp.maximum(jnp.std(x), 1e-6)

  a, b = standardise(q), standardise(returns)
  return QError(
    standardised=jnp.mean(jnp.square(a - b)),
    raw=jnp.mean(jnp.square(q - returns)),
    correlation=jnp.mean(a * b),
  )


def measure_q_error(
  env: Environment,
  act: Act,
  q_values: QValues,
  policy: Any,
  critics: Any,
  key: Key,
  num_episodes: int,
  discount: float,
) -> tuple[Episodes, QError]:
  """Runs deterministic episodes and compares; jit it, vmap it over seeds.

  Args:
    env: the task; its own true reward counts.
    act: `(policy, obs [N, ds]) -> action [N, da]`.
    q_values: `(critics, obs [..., ds], action [..., da]) -> [...]`.
    policy: what `act` needs.
    critics: what `q_values` needs.
    key: randomness of the starts.
    num_episodes: N.
    discount: gamma of the critics.

  Returns:
    What `evaluate` gives of the same policy and key: the episodes are the same, and
    need not be run twice. The error.
  """

  def look(before: EnvState, action: jax.Array, after: EnvState) -> Any:
    return before.obs, action, after.env_reward, after.terminated

  episodes, (obs, action, rewards, ends) = play(
    env, act, policy, key, num_episodes, look
  )
  used = steps_with_whole_return(env.episode_length, discount)
  returns = discounted_returns(rewards, ends, discount)[:used]
  q = q_values(critics, obs[:used], action[:used])
  return episodes, q_error(q, returns)
