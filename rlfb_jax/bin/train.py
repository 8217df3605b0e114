"""rlfb-train: trains policies, many seeds at once, and leaves a run behind.

rlfb-train --method=rbrl_kl --task=walker_walk --num_seeds=5
rlfb-train --preset=logged_only --task=cheetah_run
rlfb-train --flagfile=runs/walker_walk-rbrl_kl/flags.txt --seed=100
"""

import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rlfb_jax import methods
from rlfb_jax.bin import flags
from rlfb_jax.envs.base import Environment
from rlfb_jax.envs.make import make as make_env
from rlfb_jax.methods.algorithm import Algorithm
from rlfb_jax.methods.config import from_sections, to_sections
from rlfb_jax.physics.config import PhysicsOptions
from rlfb_jax.training import export, loop, returns, run_dir
from rlfb_jax.training.metrics import MetricsWriter
from rlfb_jax.training.program import Compiled
from rlfb_jax.training.progress import Progress

PROGRAM = 'rlfb-train'

# Metrics on the progress line, where a method has them.
_SHOWN = ('episode_return', 'reward_correlation', 'non_finite_updates')


class Finished(NamedTuple):
  """A run that has ended: what lies on disk, and what is in memory."""

  run: run_dir.RunDir
  trained: loop.Trained


def parse(argv: Sequence[str]) -> methods.Config:
  """The configuration that a command line means.

  Raises:
    ValueError: in one sentence.
  """
  return from_sections(flags.parse(argv, methods.SECTIONS))


def make_environment(config: methods.Config) -> Environment:
  """The environment that the configuration names."""
  names = [field.name for field in dataclasses.fields(PhysicsOptions)]
  return make_env(config.run.task, **{n: getattr(config.run, n) for n in names})


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
  return run_dir.create(
    config.run.run_dir,
    f'{config.run.task}-{config.run.method}',
    # A repeated run gets a folder of its own.
    flags.to_lines(to_sections(config), omit=('run_dir', 'resume')),
    rows=plain_rows(config) if rows is None else rows,
  )


def plain_rows(config: methods.Config) -> list[run_dir.Row]:
  """The seeds of a configuration, all under its flags."""
  first = config.run.seed
  return [run_dir.Row(first + i, {}) for i in range(config.run.num_seeds)]


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
    ValueError: in one sentence.
  """
  if not config.run.run_dir:
    raise ValueError('--resume needs --run_dir=FOLDER, the run to go on with.')
  if not run_dir.RunDir(pathlib.Path(config.run.run_dir)).manifest.is_file():
    return start(config, env, rows)
  return run_dir.open_existing(config.run.run_dir)


def train(
  config: methods.Config,
  env: Environment,
  run: run_dir.RunDir,
  *,
  algorithm: Algorithm | None = None,
  rows: Any = None,
  functions: Compiled | None = None,
) -> Finished:
  """Trains to the end; metrics appear in the run's folder as it goes.

  Args:
    config: what to run; checked by `start`.
    env: made by `make_environment`.
    run: made by `start` or `start_or_resume`, not complete.
    algorithm: in place of the configuration's own, such as a family of them.
    rows: what `algorithm.init` takes, leaves [S, ...]; by default keys of the seeds.
    functions: the algorithm compiled, where that was done before.

  Returns:
    The run, whose policy is exported and evaluated.
  """
  options = config.run
  started = time.monotonic()
  algorithm = algorithm or methods.make(config, env)
  if rows is None:
    rows = loop.seed_keys(options.seed, options.num_seeds)
  progress = Progress(
    config.total_env_steps,
    keys=_SHOWN,
    label=f'{options.method} {options.task}',
    speed_factor=len(run_dir.read_rows(run)),
  )
  try:
    with MetricsWriter(run, options.tensorboard) as writer:
      trained = loop.train(
        algorithm,
        env,
        rows=rows,
        seed=options.seed,
        total_env_steps=config.total_env_steps,
        eval_episodes=options.eval_episodes,
        eval_interval=options.eval_interval if options.eval_episodes else 0,
        listeners=(writer.write, progress.update),
        functions=functions,
      )
  finally:
    progress.close()
  network = algorithm.network(trained.policy)
  export.save(run.policy, export.from_network(options.task, network))
  if trained.evaluation is not None:
    returns.save(
      run.report, options.task, options.seed, trained.evaluation, trained.q_error
    )
  run_dir.write_finished(run, config.total_env_steps, time.monotonic() - started)
  return Finished(run, trained)


def main(argv: Sequence[str]) -> None:
  """Trains as the command line says."""
  if any(arg in ('--help', '-h', '-help') for arg in argv):
    print(flags.help_text(__doc__ or '', methods.SECTIONS))
    return
  with flags.usage_errors(PROGRAM):
    config = parse(argv)
    env = make_environment(config)
    run = (start_or_resume if config.run.resume else start)(config, env)
    finished = run_dir.read_finished(run)
    if finished is not None:
      steps = finished['env_steps']
      print(f'{PROGRAM}: {run.root} is complete ({steps} steps)', file=sys.stderr)
      return
  needed = methods.memory_needed(config, env)
  print(
    f'{PROGRAM}: writing to {run.root}; takes {needed.total / 2**20:,.0f} MiB of'
    ' memory for replay, clips and labels',
    file=sys.stderr,
  )
  try:
    trained = train(config, env, run).trained
  except KeyboardInterrupt:
    print(f'{PROGRAM}: stopped; metrics so far are in {run.metrics}', file=sys.stderr)
    raise SystemExit(130) from None
  evaluation = trained.evaluation
  if evaluation is not None:
    print(returns.describe(config.run.task, evaluation))
  for warning in broken_seeds(trained.state, config.run.seed):
    print(f'{PROGRAM}: {warning}', file=sys.stderr)


def broken_seeds(state: Any, first_seed: int) -> list[str]:
  """A sentence for each seed some of whose updates were not finite.

  Args:
    state: of all seeds, leaves [S, ...].
    first_seed: number of the first.
  """
  skipped = np.asarray(state.agent.skipped_updates)
  return [
    f'seed {first_seed + i} left out {count} updates whose gradient was not finite; '
    'read its results with care.'
    for i, count in enumerate(skipped)
    if count
  ]


def run() -> None:
  """Entry point of the command."""
  main(sys.argv[1:])


if __name__ == '__main__':
  run()
