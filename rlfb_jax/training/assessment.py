"""How good the policies of a run are, and how far its critics are from the truth."""

from collections.abc import Callable
from typing import Any

import jax

from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import Environment
from rlfb_jax.methods.algorithm import Algorithm
from rlfb_jax.training.evaluate import Episodes, evaluate
from rlfb_jax.training.program import Compiled
from rlfb_jax.training.q_error import QError, measure_q_error

# `state -> (episodes [S, N] in NumPy, error of the critics or None)`.
Assess = Callable[[Any], tuple[Episodes, QError | None]]


def make_assess(
  algorithm: Algorithm,
  functions: Compiled,
  env: Environment,
  key: Key,
  num_episodes: int,
) -> Assess:
  """Deterministic episodes and, where actions are valued, the error of the values.

  Args:
    algorithm: the method.
    functions: the method compiled.
    env: the task; its own true reward counts.
    key: randomness of the starts, the same for all seeds and every time.
    num_episodes: of each seed.
  """
  act, critics = algorithm.act, algorithm.critics

  @functions.read
  def assess(state: Any) -> tuple[Episodes, QError | None]:
    policy = algorithm.policy(state)
    if critics is None:
      return evaluate(env, act, policy, key, num_episodes), None
    params = critics.params(state)
    return measure_q_error(
      env, act, critics.q_values, policy, params, key, num_episodes, critics.discount
    )

  return lambda state: jax.device_get(assess(state))


def summary(episodes: Episodes, q_error: QError | None) -> dict[str, Any]:
  """Metrics of an assessment, each [S].

  Args:
    episodes: in NumPy, [S, N]; where the task tells success, the share of episodes
      that had it at any step is a metric, too.
    q_error: of the critics, each [S].
  """
  metrics = {'evaluation_return': episodes.returns.mean(axis=1)}
  if episodes.success is not None:
    metrics['evaluation_success'] = episodes.success.mean(axis=1)
  if q_error is not None:
    metrics |= {
      'q_error': q_error.standardised,
      'q_error_raw': q_error.raw,
      'q_correlation': q_error.correlation,
    }
  return metrics
