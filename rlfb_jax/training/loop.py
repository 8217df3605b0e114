"""The loop between chunks: the host decides what runs next, and looks at it.

Everything that learns is compiled and mapped over seeds; Python is met only here,
every few seconds.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import Environment
from rlfb_jax.methods.algorithm import Algorithm
from rlfb_jax.training.evaluate import evaluate_seeds
from rlfb_jax.training.program import Compiled, compile_algorithm
from rlfb_jax.training.q_error import QError, measure_q_error

# `(env_steps of each seed, metrics [S, ...])`, after each chunk.
Listener = Callable[[int, dict[str, Any]], None]

# Evaluation draws its starts from a stream that training never touches.
_EVALUATION = 1_000_003


class Trained(NamedTuple):
  """What a finished run leaves in memory.

  Attributes:
    state: leaves [S, ...].
    policy: what `algorithm.act` needs, leaves [S, ...].
    evaluation: returns of deterministic episodes, [S, episodes], or None.
    q_error: of the critics, each [S], or None where nothing values actions.
  """

  state: Any
  policy: Any
  evaluation: np.ndarray | None
  q_error: QError | None


def seed_keys(seed: int, num_seeds: int) -> jax.Array:
  """One key a seed, [S]: seed i of many is the same run as seed i alone."""
  return jnp.stack([jax.random.key(seed + i) for i in range(num_seeds)])


def evaluation_key(seed: int) -> Key:
  """Randomness of the starts of evaluation episodes."""
  return jax.random.fold_in(jax.random.key(seed), _EVALUATION)


def train(
  algorithm: Algorithm,
  env: Environment,
  *,
  rows: Any,
  seed: int,
  total_env_steps: int,
  eval_episodes: int = 0,
  eval_interval: int = 0,
  listeners: tuple[Listener, ...] = (),
  functions: Compiled | None = None,
) -> Trained:
  """Runs a method to the end.

  Args:
    algorithm: the method, see `rlfb_jax.methods.make`.
    env: for evaluation.
    rows: what `algorithm.init` takes, leaves [S, ...]; see `seed_keys`.
    seed: randomness of the evaluation, the same for all rows.
    total_env_steps: of each seed; a multiple of the chunk.
    eval_episodes: episodes of the deterministic evaluation at the end.
    eval_interval: environment steps between evaluations on the way, whose mean return
      is the metric `evaluation_return`; rounded up to whole chunks, 0 for none.
    listeners: called after each chunk with that chunk's metrics, leading axis [S],
      and with `phase`, `wall_seconds` and `steps_per_second` (all seeds together,
      the chunk's own session and compilation included).
    functions: the algorithm compiled, where that was done before.
  """
  functions = functions or compile_algorithm(algorithm)
  num_seeds = jax.tree.leaves(rows)[0].shape[0]
  assess = _make_assessment(algorithm, env, evaluation_key(seed), eval_episodes)
  start = time.monotonic()
  state = functions.init(rows)
  env_steps = 0
  while env_steps < total_env_steps:
    chunk_start = time.monotonic()
    metrics: dict[str, Any] = {}
    request = algorithm.request(env_steps)
    if request is not None and functions.session is not None:
      wanted = jax.tree.map(jnp.int32, request.wanted)
      state, answered = functions.session(state, wanted, request.strategies)
      metrics |= answered
    for name in algorithm.events_due(env_steps):
      state, happened = functions.events[name](state)
      metrics |= happened
    phase = algorithm.phase(env_steps)
    state, learned = functions.chunks[phase](state)
    metrics |= learned
    if functions.diagnose is not None:
      state, watched = functions.diagnose(state)
      metrics |= watched
    metrics = jax.device_get(metrics)
    steps = algorithm.steps_of(phase)
    passed, env_steps = env_steps, env_steps + steps
    if eval_interval and env_steps // eval_interval > passed // eval_interval:
      metrics |= _summary(*assess(state))
    now = time.monotonic()
    metrics |= {
      'phase': phase,
      'wall_seconds': round(now - start, 3),
      'steps_per_second': steps * num_seeds / (now - chunk_start),
    }
    for listener in listeners:
      listener(env_steps, metrics)

  policy = jax.jit(jax.vmap(algorithm.policy))(state)
  evaluation, q_error = assess(state) if eval_episodes else (None, None)
  return Trained(state, policy, evaluation, q_error)


Assessment = tuple[np.ndarray, QError | None]


def _make_assessment(
  algorithm: Algorithm, env: Environment, key: Key, num_episodes: int
) -> Callable[[Any], Assessment]:
  """Deterministic episodes and, where actions are valued, the error of the values."""
  critics = algorithm.critics

  @jax.jit
  def assess(state: Any) -> tuple[jax.Array, QError | None]:
    policy = jax.vmap(algorithm.policy)(state)
    returns = evaluate_seeds(env, algorithm.act, policy, key, num_episodes)
    if critics is None:
      return returns, None
    errors = jax.vmap(
      lambda policy, params: measure_q_error(
        env,
        algorithm.act,
        critics.q_values,
        policy,
        params,
        key,
        num_episodes,
        critics.discount,
      )
    )(policy, jax.vmap(critics.params)(state))
    return returns, errors

  return lambda state: jax.device_get(assess(state))


def _summary(returns: np.ndarray, q_error: QError | None) -> dict[str, Any]:
  metrics = {'evaluation_return': returns.mean(axis=1)}
  if q_error is not None:
    metrics |= {
      'q_error': q_error.standardised,
      'q_error_raw': q_error.raw,
      'q_correlation': q_error.correlation,
    }
  return metrics
