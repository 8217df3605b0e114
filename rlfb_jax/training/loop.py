"""The loop between stages: the host decides what runs next, and looks at it.

Everything that learns is compiled and mapped over seeds; Python is met only here,
every few seconds.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import Environment
from rlfb_jax.methods.algorithm import Algorithm
from rlfb_jax.training import hosts, signals
from rlfb_jax.training.assessment import make_assess, summary
from rlfb_jax.training.checkpoint import Checkpoints, Restored
from rlfb_jax.training.clock import Clock
from rlfb_jax.training.evaluate import Episodes
from rlfb_jax.training.program import Compiled, compile_algorithm
from rlfb_jax.training.q_error import QError
from rlfb_jax.training.stages import CHUNK, run_stage, stages_at

# `(env_steps of each seed, metrics [S, ...])`, after each chunk.
Listener = Callable[[int, dict[str, Any]], None]

# Evaluation draws its starts from a stream that training never touches, the same for
# every seed of every run: policies are compared on the same episodes, however seeds
# were cut into jobs.
_EVALUATION = 1_000_003


class Trained(NamedTuple):
  """What a finished run leaves in memory.

  Attributes:
    state: leaves [S, ...].
    policy: what `algorithm.act` needs, leaves [S, ...].
    evaluation: deterministic episodes, [S, eval_episodes] in NumPy, or None.
    q_error: of the critics, each [S], or None where nothing values actions.
    seconds: that the run has taken, over all of its sessions.
  """

  state: Any
  policy: Any
  evaluation: Episodes | None
  q_error: QError | None
  seconds: float


def seed_keys(seed: int, num_seeds: int) -> jax.Array:
  """One key a seed, [S]: seed i of many is the same run as seed i alone."""
  return jnp.stack([jax.random.key(seed + i) for i in range(num_seeds)])


def evaluation_key() -> Key:
  """Randomness of the starts of evaluation episodes."""
  return jax.random.key(_EVALUATION)


def train(
  algorithm: Algorithm,
  env: Environment,
  *,
  rows: Any,
  total_env_steps: int,
  eval_episodes: int = 0,
  eval_interval: int = 0,
  listeners: tuple[Listener, ...] = (),
  functions: Compiled | None = None,
  checkpoints: Checkpoints | None = None,
  restored: Restored | None = None,
  patience: float = math.inf,
  leave: Callable[[signals.Stopped], object] = signals.leave,
) -> Trained:
  """Runs a method to the end.

  Args:
    algorithm: the method, see `rlfb_jax.methods.make`.
    env: for evaluation.
    rows: what `algorithm.init` takes, leaves [S, ...]; see `seed_keys`.
    total_env_steps: of each seed; a multiple of the chunk.
    eval_episodes: episodes of the deterministic evaluation at the end.
    eval_interval: environment steps between evaluations on the way, whose mean return
      is the metric `evaluation_return`; rounded up to whole chunks, 0 for none.
    listeners: called after each chunk with that chunk's metrics, leading axis [S],
      and with `phase`, `wall_seconds` and `steps_per_second` (all seeds together,
      the chunk's own session and compilation included).
    functions: the algorithm compiled, where that was done before.
    checkpoints: where the run is saved: now and then, at the end, and when a signal
      asks it to stop. Saving changes no result.
    restored: where to go on, from `checkpoints.restore`; else the run starts.
    patience: seconds that a program may still take when a signal asks to stop. After
      longer ones the run is saved, so that little more than one is ever lost.
    leave: called, in another thread, where a program takes longer; should end the
      process.

  Raises:
    signals.Stopped: if there are checkpoints and a signal has come; says what is saved.
  """
  functions = functions or compile_algorithm(algorithm)
  assess = make_assess(algorithm, functions, env, evaluation_key(), eval_episodes)
  if restored is None:
    restored = Restored(functions.init(rows), Clock())
  state, clock = restored
  del restored  # Its arrays are donated to the first stage.
  earlier, start = clock.seconds, time.monotonic()
  num_rows = jax.tree.leaves(rows)[0].shape[0]

  with _stopping_at_signals(checkpoints, patience, leave) as visit:
    while clock.env_steps < total_env_steps:
      stages = stages_at(algorithm, clock.env_steps)
      for stage in stages[clock.done :]:
        state, learned = run_stage(algorithm, functions, stage, clock.env_steps, state)
        clock.pending |= jax.device_get(learned)
        clock.done += 1
        clock.seconds = earlier + time.monotonic() - start
        # After the last one comes its line, unless the run has to stop.
        visit(state, clock, may_save=clock.done < len(stages))
      (phase,) = (stage.name for stage in stages if stage.kind == CHUNK)
      steps = algorithm.steps_of(phase)
      passed, env_steps = clock.env_steps, clock.env_steps + steps
      metrics = clock.pending
      if eval_interval and env_steps // eval_interval > passed // eval_interval:
        metrics |= summary(*assess(state))
      now = earlier + time.monotonic() - start
      metrics |= {
        'phase': phase,
        'wall_seconds': round(now, 3),
        'steps_per_second': steps * num_rows / max(now - clock.line_seconds, 1e-9),
      }
      for listener in listeners:
        listener(env_steps, metrics)
      score = _score(metrics, evaluated=bool(eval_interval))
      clock = Clock(
        env_steps=env_steps,
        seconds=now,
        line_seconds=now,
        score=clock.score if score is None else score,
      )
      visit(state, clock, may_save=True)
    if checkpoints is not None:
      checkpoints.save(state, clock)

  policy = functions.read(algorithm.policy)(state)
  evaluation, q_error = assess(state) if eval_episodes else (None, None)
  seconds = earlier + time.monotonic() - start
  return Trained(state, policy, evaluation, q_error, seconds)


@contextlib.contextmanager
def _stopping_at_signals(
  checkpoints: Checkpoints | None,
  patience: float,
  leave: Callable[[signals.Stopped], object],
) -> Iterator[Callable[..., None]]:
  """What the loop calls between two stages: saves where it is time, or stops."""
  if checkpoints is None:
    yield lambda state, clock, may_save: None
    return

  def leave_program(number: int) -> None:
    checkpoints.wait()
    leave(signals.Stopped(number, checkpoints.saved[0]))

  # One of several hosts that left would leave the others in the program.
  leaves_after = patience if jax.process_count() == 1 else math.inf
  with signals.watch(leaves_after, leave_program) as request:
    visited = time.monotonic()

    def visit(state: Any, clock: Clock, may_save: bool) -> None:
      nonlocal visited
      # A host alone cannot decide: the others would wait for it in the next program.
      if hosts.anywhere(request.number is not None):
        request.answer()
        checkpoints.save(state, clock)
        checkpoints.wait()
        raise signals.Stopped(request.number or signal.SIGTERM, checkpoints.saved[0])
      if not may_save:
        return
      was_long = time.monotonic() - visited > patience
      if hosts.as_first(checkpoints.due(clock, was_long)):
        checkpoints.save(state, clock)
      visited = time.monotonic()

    try:
      yield visit
    finally:
      checkpoints.wait()
    # One that came with the last save has not been seen yet.
    if hosts.anywhere(request.number is not None):
      raise signals.Stopped(request.number or signal.SIGTERM, checkpoints.saved[0])


def _score(metrics: dict[str, Any], evaluated: bool) -> float | None:
  """The mean over seeds that tells the best checkpoint; None where there is none."""
  value = metrics.get('evaluation_return' if evaluated else 'episode_return')
  if value is None or not np.isfinite(value).any():
    return None
  return float(np.nanmean(np.where(np.isfinite(value), value, np.nan)))
