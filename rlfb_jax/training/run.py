"""A run from its folder to its end: trained, saved, exported, evaluated.

Where a run stops, `train_run` goes on from the last checkpoint when called again.
"""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from rlfb_jax import methods
from rlfb_jax.core.precision import with_precision
from rlfb_jax.envs.base import Environment
from rlfb_jax.envs.make import make as make_env
from rlfb_jax.methods.algorithm import Algorithm
from rlfb_jax.training import (
  export,
  hosts,
  loop,
  manifest,
  metrics,
  returns,
  run_dir,
  run_lock,
  signals,
)
from rlfb_jax.training.checkpoint import Checkpoints
from rlfb_jax.training.metrics import MetricsWriter
from rlfb_jax.training.placement import place_run
from rlfb_jax.training.program import Compiled, compile_algorithm
from rlfb_jax.training.progress import Progress, tell

# Metrics on the progress line, where a method has them.
_SHOWN = ('episode_return', 'reward_correlation', 'non_finite_updates')


class Finished(NamedTuple):
  """A run that has ended: what lies on disk, and what is in memory."""

  run: run_dir.RunDir
  trained: loop.Trained


def make_environment(config: methods.Config) -> Environment:
  """The environment that the configuration names."""
  return make_env(config.run.task, **config.run.engine_settings())


def prepare(config: methods.Config) -> Environment:
  """Readies this process for a configuration, before JAX is used for anything.

  Returns:
    The environment that the configuration names.

  Raises:
    ValueError: in one sentence, if hosts, devices or the environment are not there.
  """
  hosts.connect(config.run)
  return make_environment(config)


def plain_rows(config: methods.Config) -> list[run_dir.Row]:
  """The seeds of a configuration, all under its flags."""
  first = config.run.seed
  return [run_dir.Row(first + i, {}) for i in range(config.run.num_seeds)]


def train_run(
  config: methods.Config,
  env: Environment,
  run: run_dir.RunDir,
  *,
  algorithm: Algorithm | None = None,
  rows: Any = None,
  functions: Compiled | None = None,
  say: Callable[[str], None] = tell,
  on_leave: Callable[[], object] = lambda: None,
  claimed: bool = False,
) -> Finished:
  """Trains to the end, from the run's last checkpoint on where it has one.

  Args:
    config: what to run; checked by `methods.check`.
    env: made by `make_environment`.
    run: its folder, not complete.
    algorithm: in place of the configuration's own, such as a family of them.
    rows: what `algorithm.init` takes, leaves [S, ...]; by default keys of the seeds.
    functions: the algorithm compiled, where that was done before.
    say: how people hear of what is not as it was, or not as it should be.
    on_leave: called before a stop ends the process within a program that takes longer
      than `--stop_seconds`.
    claimed: whether others are kept from the run in another way, see `run_lock.held`.

  Returns:
    The run, whose policy is exported and evaluated.

  Raises:
    BusyError: if another process works on the run.
    UnusableError: if the run has checkpoints of which none can be used.
    OSError: if the disk does not take what a complete run must have.
    Stopped: if a signal asked for it; says what is saved.
  """
  options = config.run
  if algorithm is None:
    algorithm = methods.make(config, env)
  if rows is None:
    rows = loop.seed_keys(options.seed, options.num_seeds)
  if functions is None:
    placement = place_run(config, jax.tree.leaves(rows)[0].shape[0])
    functions = compile_algorithm(algorithm, placement, options.matmul_precision)
  with run_lock.held(run, claimed, say):
    return _train_held(config, env, run, algorithm, rows, functions, say, on_leave)


def _train_held(
  config: methods.Config,
  env: Environment,
  run: run_dir.RunDir,
  algorithm: Algorithm,
  rows: Any,
  functions: Compiled,
  say: Callable[[str], None],
  on_leave: Callable[[], object],
) -> Finished:
  """`train_run`, once nobody else works on the run."""
  options = config.run
  read_policy = functions.read(algorithm.policy)

  first = hosts.is_first()  # Who alone writes, but for its part of checkpoints.

  def export_policy(policy: Any) -> None:
    if not first:
      return
    network = algorithm.network(jax.device_get(policy))
    export.save(run.policy, export.from_network(options.task, network))

  def before_save(state: Any) -> None:
    policy = read_policy(state)  # All hosts ask, before one alone may fail.
    if first:
      writer.sync()
    export_policy(policy)

  checkpoints = restored = None
  saves = options.checkpoint_minutes is not None or options.checkpoint_interval > 0
  # A run that is not saved any more goes on, too, from where it was saved before.
  if saves or hosts.as_first(run.checkpoints.is_dir()):
    checkpoints = Checkpoints(
      run.checkpoints,
      minutes=options.checkpoint_minutes,
      interval=options.checkpoint_interval,
      kept=options.checkpoints_kept,
      before_save=before_save,
      say=say,
    )
    init = with_precision(jax.vmap(algorithm.init), options.matmul_precision)
    like = jax.eval_shape(init, rows)
    restored = checkpoints.restore(like, functions.place)

  def leave(stop: signals.Stopped) -> None:
    limit = f'--stop_seconds={options.stop_seconds:g}'
    try:
      on_leave()
      say(f'did not wait for the running program, which took longer than {limit}')
      say(stopped_text(run, stop))
    finally:
      signals.leave(stop)

  env_steps = restored.clock.env_steps if restored else 0
  if first:
    if run.metrics.exists():
      say(f'{run.root} goes on from step {env_steps:,}')
    for change in manifest.add_session(run.manifest, env_steps):
      say(f'{change}; the last bits of what follows may differ from before.')
  progress = Progress(
    config.total_env_steps,
    keys=_SHOWN,
    label=f'{options.method} {options.task}',
    speed_factor=len(run_dir.read_rows(run)),
  )
  listeners: tuple[loop.Listener, ...] = ()
  with contextlib.ExitStack() as stack:
    stack.enter_context(contextlib.closing(progress))
    if first:
      writer = stack.enter_context(
        MetricsWriter(run, options.tensorboard, after=env_steps, say=say)
      )
      listeners = writer.write, progress.update
    trained = loop.train(
      algorithm,
      env,
      rows=rows,
      total_env_steps=config.total_env_steps,
      eval_episodes=options.eval_episodes,
      eval_interval=options.eval_interval if options.eval_episodes else 0,
      listeners=listeners,
      functions=functions,
      checkpoints=checkpoints if saves else None,
      restored=restored,
      patience=options.stop_seconds,
      leave=leave,
    )
    if first:
      writer.sync()  # A run without all of its lines is not complete.
  export_policy(trained.policy)
  if first:
    if trained.evaluation is not None:
      returns.save(
        run.report / returns.FILE,
        options.task,
        options.seed,
        trained.evaluation,
        trained.q_error,
      )
    run_dir.write_finished(run, config.total_env_steps, trained.seconds)
  return Finished(run, trained)


def stopped_text(run: run_dir.RunDir, stop: signals.Stopped) -> str:
  """What people should know of a run that was asked to stop."""
  return (
    f'stopped; metrics so far are in {run.metrics}; --run_dir={run.root} --resume goes'
    f' on from step {stop.env_steps:,}'
  )


def broken_seeds(run: run_dir.RunDir) -> list[str]:
  """A sentence for each seed, and each thing in it that was not finite."""
  rows = run_dir.read_rows(run)
  return [
    f'seed {rows[index].seed} {text}; read its results with care.'
    for index, text in metrics.broken(metrics.read(run.root))
  ]
