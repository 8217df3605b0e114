"""rlfb-train: trains policies, many seeds at once, and leaves a run behind.

rlfb-train --method=rbrl_kl --task=walker_walk --num_seeds=5
rlfb-train --preset=logged_only --task=cheetah_run
rlfb-train --flagfile=runs/walker_walk-rbrl_kl/flags.txt --seed=100
rlfb-train --run_dir=runs/walker_walk-rbrl_kl --resume
"""

import contextlib
import dataclasses
import functools
import pathlib
import signal
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rlfb_jax import methods
from rlfb_jax.bin import flags, resume
from rlfb_jax.bin.resume import parse as parse
from rlfb_jax.envs.base import Environment
from rlfb_jax.envs.make import make as make_env
from rlfb_jax.methods.algorithm import Algorithm
from rlfb_jax.methods.config import to_sections
from rlfb_jax.physics.config import PhysicsOptions
from rlfb_jax.training import export, hosts, loop, manifest, metrics, returns, run_dir
from rlfb_jax.training.checkpoint import Checkpoints, UnusableError
from rlfb_jax.training.metrics import MetricsWriter
from rlfb_jax.training.placement import place_run
from rlfb_jax.training.program import Compiled, compile_algorithm
from rlfb_jax.training.progress import Progress
from rlfb_jax.training.signals import Stopped

PROGRAM = 'rlfb-train'

# Metrics on the progress line, where a method has them.
_SHOWN = ('episode_return', 'reward_correlation', 'non_finite_updates')


class Finished(NamedTuple):
  """A run that has ended: what lies on disk, and what is in memory."""

  run: run_dir.RunDir
  trained: loop.Trained


def make_environment(config: methods.Config) -> Environment:
  """The environment that the configuration names."""
  names = [field.name for field in dataclasses.fields(PhysicsOptions)]
  return make_env(config.run.task, **{n: getattr(config.run, n) for n in names})


def prepare(config: methods.Config) -> Environment:
  """Readies this process for a configuration, before JAX is used for anything.

  Returns:
    The environment that the configuration names.

  Raises:
    ValueError: in one sentence, if hosts, devices or the environment are not there.
  """
  hosts.connect(config.run)
  return make_environment(config)


def start(
  config: methods.Config,
  env: Environment,
  rows: Sequence[run_dir.Row] | None = None,
) -> run_dir.RunDir:
  """Checks the configuration and makes the run's folder.

  Args:
    config: what to run.
    env: made by `make_environment`.
    rows: what runs side by side; by default the seeds of the configuration.

  Raises:
    ValueError: in one sentence, before anything is written.
  """
  methods.check(config, env)
  methods.check_memory(config, env)
  rows = plain_rows(config) if rows is None else rows
  place_run(config, len(rows))
  root = ''
  if hosts.is_first():
    run = run_dir.create(
      config.run.run_dir,
      f'{config.run.task}-{config.run.method}',
      flags.to_lines(to_sections(config), omit=resume.NOT_KEPT),
      rows=rows,
    )
    root = str(run.root)
  return run_dir.RunDir(pathlib.Path(hosts.text_of_first(root)))


def start_or_resume(
  config: methods.Config,
  env: Environment,
  rows: Sequence[run_dir.Row] | None = None,
) -> run_dir.RunDir:
  """The run in the folder of the configuration, made by `start` if there is none.

  It may be complete: `run_dir.read_finished` tells.

  Args:
    config: what to run.
    env: made by `make_environment`.
    rows: as in `start`.

  Raises:
    ValueError: in one sentence, if it cannot start or was started otherwise.
  """
  run = run_dir.RunDir(pathlib.Path(config.run.run_dir))
  if not hosts.as_first(run.manifest.is_file()):
    return start(config, env, rows)
  shall_be = plain_rows(config) if rows is None else rows
  for trace in resume.check_same(config, shall_be, run):
    say(trace)
  return run


def plain_rows(config: methods.Config) -> list[run_dir.Row]:
  """The seeds of a configuration, all under its flags."""
  first = config.run.seed
  return [run_dir.Row(first + i, {}) for i in range(config.run.num_seeds)]


def train(
  config: methods.Config,
  env: Environment,
  run: run_dir.RunDir,
  *,
  algorithm: Algorithm | None = None,
  rows: Any = None,
  functions: Compiled | None = None,
) -> Finished:
  """Trains to the end, from the run's last checkpoint on where it has one.

  Args:
    config: what to run; checked by `start`.
    env: made by `make_environment`.
    run: made by `start` or `start_or_resume`, not complete.
    algorithm: in place of the configuration's own, such as a family of them.
    rows: what `algorithm.init` takes, leaves [S, ...]; by default keys of the seeds.
    functions: the algorithm compiled, where that was done before.

  Returns:
    The run, whose policy is exported and evaluated.

  Raises:
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
    functions = compile_algorithm(algorithm, placement)
  read_policy = functions.read(algorithm.policy)

  first = hosts.is_first()  # Who alone writes, but for its part of checkpoints.

  def export_policy(policy: Any) -> None:
    if not first:
      return
    network = algorithm.network(jax.device_get(policy))
    export.save(run.policy, export.from_network(options.task, network))

  def before_save(state: Any) -> None:
    if first:
      writer.sync()
    export_policy(read_policy(state))

  checkpoints = restored = None
  if options.checkpoint_minutes is not None or options.checkpoint_interval:
    checkpoints = Checkpoints(
      run.checkpoints,
      minutes=options.checkpoint_minutes,
      interval=options.checkpoint_interval,
      kept=options.checkpoints_kept,
      before_save=before_save,
      say=say,
    )
    like = jax.eval_shape(jax.vmap(algorithm.init), rows)
    restored = checkpoints.restore(like, functools.partial(_place, functions))
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
      seed=options.seed,
      total_env_steps=config.total_env_steps,
      eval_episodes=options.eval_episodes,
      eval_interval=options.eval_interval if options.eval_episodes else 0,
      listeners=listeners,
      functions=functions,
      checkpoints=checkpoints,
      restored=restored,
    )
    if first:
      writer.sync()  # A run without all of its lines is not complete.
  export_policy(trained.policy)
  if first:
    if trained.evaluation is not None:
      returns.save(
        run.report, options.task, options.seed, trained.evaluation, trained.q_error
      )
    run_dir.write_finished(run, config.total_env_steps, trained.seconds)
  return Finished(run, trained)


def _place(functions: Compiled, state: Any) -> Any:
  placement = functions.placement
  return placement.put(state, placement.state(state)) if placement else state


def main(argv: Sequence[str]) -> None:
  """Trains as the command line says."""
  if any(arg in ('--help', '-h', '-help') for arg in argv):
    print(flags.help_text(__doc__ or '', methods.SECTIONS))
    return
  with flags.usage_errors(PROGRAM):
    config = parse(argv)
    env = prepare(config)
    run = (start_or_resume if config.run.resume else start)(config, env)
  complete = run_dir.read_finished(run)
  if complete is not None:
    say(f'{run.root} is complete: {complete["env_steps"]:,} steps; nothing to do.')
    return
  if hosts.is_first():
    needed = methods.memory_needed(config, env)
    say(
      f'writing to {run.root}; takes {needed.total / 2**20:,.0f} MiB of'
      ' memory for replay, clips and labels'
    )
  try:
    trained = train(config, env, run).trained
  except UnusableError as error:
    say(str(error))
    raise SystemExit(1) from None
  except OSError as error:
    say(
      f'{error}; not complete, --run_dir={run.root} --resume goes on from what is saved'
    )
    raise SystemExit(1) from None
  except KeyboardInterrupt as stop:
    text = f'stopped; metrics so far are in {run.metrics}'
    code = 128 + signal.SIGINT
    if isinstance(stop, Stopped):
      text += f'; --run_dir={run.root} --resume goes on from step {stop.env_steps:,}'
      code = 128 + stop.number
    say(text)
    raise SystemExit(code) from None
  if not hosts.is_first():
    return
  if trained.evaluation is not None:
    print(returns.describe(config.run.task, trained.evaluation))
  for warning in broken_seeds(run):
    say(warning)


def broken_seeds(run: run_dir.RunDir) -> list[str]:
  """A sentence for each seed some of whose updates were not finite."""
  counts = metrics.read(run.root).get('non_finite_updates')
  if counts is None:
    return []
  # Running totals; lines of phases without updates have none.
  totals = np.nan_to_num(counts).max(axis=0)
  return [
    f'seed {row.seed} left out {total:.0f} updates whose gradient was not finite;'
    ' read its results with care.'
    for row, total in zip(run_dir.read_rows(run), totals, strict=True)
    if total
  ]


def say(text: str) -> None:
  """Tells people, apart from results."""
  print(f'{PROGRAM}: {text}', file=sys.stderr)


def run() -> None:
  """Entry point of the command."""
  main(sys.argv[1:])


if __name__ == '__main__':
  run()
