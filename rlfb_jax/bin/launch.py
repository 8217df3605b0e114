"""Starting a run and going on with it: its flags, and which may be others later."""

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rlfb_jax import methods
from rlfb_jax.bin import flags
from rlfb_jax.envs.base import Environment
from rlfb_jax.methods.config import HOUSEKEEPING, from_sections, to_sections
from rlfb_jax.methods.device_options import HOSTS
from rlfb_jax.training import hosts, loop, returns, run_dir
from rlfb_jax.training.evaluate import Episodes
from rlfb_jax.training.placement import place_run
from rlfb_jax.training.progress import tell
from rlfb_jax.training.q_error import QError
from rlfb_jax.training.run import Finished, plain_rows, prepare, train_run

# Flags that may differ without a word; all others must be as they were. They change no
# bit of the results, but that several hosts without `--mesh` spread the seeds over all
# of their devices, which changes the last ones.
FREE = (*HOUSEKEEPING, *HOSTS)
# Flags that may differ, and change the last bits.
ROUNDING = ('mesh',)
# Flags that a run's own file leaves out: a repeated run gets a folder of its own, and
# which host this is, each must say itself.
NOT_KEPT = ('run_dir', 'resume', *HOSTS)


class Begun(NamedTuple):
  """A run that is ready to be trained, or complete.

  Attributes:
    config: what its flags mean.
    env: where its agent acts.
    run: its folder; `run_dir.read_finished` tells whether it is complete.
  """

  config: methods.Config
  env: Environment
  run: run_dir.RunDir


def train(argv: Sequence[str], env: Environment | None = None) -> Finished:
  """Trains the run that these flags of `rlfb-train` mean to its end.

  `train(['--method=rbrl', '--task=walker_walk'])` starts a run in a folder of its own;
  with `--run_dir=FOLDER` and `--resume` it goes on where the run in that folder is, so
  that a script which is called again does only what is missing.

  Args:
    argv: flags, presets and flag files, as on the command line.
    env: where the agent acts; by default the environment that `--task` names. Its name
      is then the task, and the flags of physics say nothing. With several hosts, which
      have to be connected before it is made, `envs.register` it instead.

  Returns:
    The run's folder and what is in memory. Of a run that was complete nothing is
    computed again: `trained.state` and `trained.policy` are None, the evaluation and
    the seconds are those that it left, and `load_policy` reads its policies.

  Raises:
    ValueError: in one sentence, before anything is written, if the flags are wrong.
    BusyError: if another process works on the run.
    UnusableError: if the run has checkpoints of which none can be used.
    OSError: if the disk does not take what a complete run must have.
    Stopped: if a signal, such as Ctrl-C, asked for it; says what is saved.
  """
  config, env, run = begin(argv, env)
  finished = run_dir.read_finished(run)
  if finished is None:
    return train_run(config, env, run)
  return Finished(run, _left_by(config, run, finished['seconds']))


def begin(
  argv: Sequence[str],
  env: Environment | None = None,
  say: Callable[[str], None] = tell,
) -> Begun:
  """All of `train` but the training.

  Args:
    argv: as in `train`.
    env: as in `train`.
    say: how people hear of flags that differ and may, where the run goes on.

  Raises:
    ValueError: in one sentence, before anything is written.
  """
  if env is not None:
    # Before the other flags: a task that is named must be this one.
    argv = [f'--task={env.name}', *argv]
  config = parse(argv)
  if env is not None and config.run.task != env.name:
    raise ValueError(
      f'--task={config.run.task} is not the environment given, {env.name}; leave the'
      ' flag out.'
    )
  if env is None:
    env = prepare(config)
  else:
    hosts.connect(config.run)
  if config.run.resume:
    return Begun(config, env, start_or_resume(config, env, say=say))
  return Begun(config, env, start(config, env))


def _left_by(
  config: methods.Config, run: run_dir.RunDir, seconds: float
) -> loop.Trained:
  """What a complete run tells of itself without being computed again."""
  evaluation = q_error = None
  if config.run.eval_episodes:
    record = returns.read_own(run.report, config.run.task, config.run.seed)
    evaluation = Episodes(
      returns=np.asarray(record['returns'], np.float32),
      success=np.asarray(record['success']) if 'success' in record else None,
    )
    if 'q_error' in record:
      arrays = {k: jnp.float32(v) for k, v in record['q_error'].items()}
      q_error = QError(**arrays)
  return loop.Trained(None, None, evaluation, q_error, seconds)


def parse(argv: Sequence[str]) -> methods.Config:
  """The configuration that a command line means.

  With `--resume` the flags of the run come first, so that the folder's name is enough.

  Raises:
    ValueError: in one sentence.
  """
  config = from_sections(flags.parse(argv, methods.SECTIONS))
  if not config.run.resume:
    return config
  if not config.run.run_dir:
    raise ValueError('--resume needs --run_dir=FOLDER, the run to go on with.')
  run = run_dir.RunDir(pathlib.Path(config.run.run_dir))
  if not run.manifest.is_file():
    return config
  # Expanded, so that presets and flag files win over the run's flags, too.
  lines = [f'--flagfile={run.flags}', *flags.expand(argv)]
  lines = [*flags.expand(lines[:1]), *lines[1:]]
  return from_sections(flags.parse(lines, methods.SECTIONS))


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
      flags.to_lines(to_sections(config), omit=NOT_KEPT),
      rows=rows,
    )
    root = str(run.root)
  return run_dir.RunDir(pathlib.Path(hosts.text_of_first(root)))


def start_or_resume(
  config: methods.Config,
  env: Environment,
  rows: Sequence[run_dir.Row] | None = None,
  say: Callable[[str], None] = tell,
) -> run_dir.RunDir:
  """The run in the folder of the configuration, made by `start` if there is none.

  It may be complete: `run_dir.read_finished` tells.

  Args:
    config: what to run.
    env: made by `make_environment`.
    rows: as in `start`.
    say: how people hear of flags that differ and may.

  Raises:
    ValueError: in one sentence, if it cannot start or was started otherwise.
  """
  run = run_dir.RunDir(pathlib.Path(config.run.run_dir))
  if not hosts.as_first(run.manifest.is_file()):
    return start(config, env, rows)
  shall_be = plain_rows(config) if rows is None else rows
  for trace in check_same(config, shall_be, run):
    say(trace)
  if run_dir.read_finished(run) is None:
    place_run(config, len(shall_be))
  return run


def check_same(
  config: methods.Config, rows: Sequence[run_dir.Row], run: run_dir.RunDir
) -> list[str]:
  """Checks that `run` was started with this configuration.

  Args:
    config: as it shall go on.
    rows: what runs side by side.
    run: its folder.

  Returns:
    A sentence for each flag that differs and may, but not without a trace.

  Raises:
    ValueError: names the first flag that differs, and both of its values.
  """
  was = flag_values(
    from_sections(flags.parse([f'--flagfile={run.flags}'], methods.SECTIONS))
  )
  traces = []
  for flag, value in flag_values(config).items():
    if flag in FREE or was[flag] == value:
      continue
    if flag in ROUNDING:
      traces.append(
        f'--{flag}={value} was --{flag}={was[flag]} before; the last bits of what'
        ' follows may differ.'
      )
    else:
      raise ValueError(
        f'--{flag}={value} is not what {run.root} was started with; leave it at'
        f' --{flag}={was[flag]}, or start another run with another --run_dir.'
      )
  before = run_dir.read_rows(run)
  for index, (old, new) in enumerate(zip(before, rows, strict=False)):
    if old != new:
      raise ValueError(
        f'row {index} of {run.root} is seed {old.seed} with {dict(old.flags)}, not seed'
        f' {new.seed} with {dict(new.flags)}; start another run with another --run_dir.'
      )
  if len(before) != len(rows):
    raise ValueError(
      f'{run.root} holds {len(before)} rows, not {len(rows)}; start another run with'
      ' another --run_dir.'
    )
  return traces


def flag_values(config: methods.Config) -> dict[str, str]:
  """Flag -> its text, of all that there are."""
  lines = flags.to_lines(to_sections(config))
  pairs = (line[2:].partition('=') for line in lines if line.startswith('--'))
  return {name: value for name, _, value in pairs}
