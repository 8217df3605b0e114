"""rlfb-train: trains policies, many seeds at once, and leaves a run behind.

rlfb-train --method=rbrl_kl --task=walker_walk --num_seeds=5
rlfb-train --preset=logged_only --task=cheetah_run
rlfb-train --flagfile=runs/walker_walk-rbrl_kl/flags.txt --seed=100
rlfb-train --run_dir=runs/walker_walk-rbrl_kl --resume
"""

import signal
import sys
from collections.abc import Sequence

from rlfb_jax import methods
from rlfb_jax.bin import flags
from rlfb_jax.bin.idle_flags import idle_flags
from rlfb_jax.bin.launch import begin
from rlfb_jax.training import hosts, returns, run_dir
from rlfb_jax.training.checkpoint import UnusableError
from rlfb_jax.training.progress import tell
from rlfb_jax.training.run import broken_seeds, stopped_text, train_run
from rlfb_jax.training.run_lock import BusyError
from rlfb_jax.training.signals import Stopped

PROGRAM = 'rlfb-train'


def main(argv: Sequence[str]) -> None:
  """Trains as the command line says."""
  if flags.wants_help(argv):
    print(flags.help_text(__doc__ or '', methods.SECTIONS))
    return
  with flags.usage_errors(PROGRAM):
    config, env, run = begin(argv, say=say)
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
    for sentence in idle_flags(argv, config):
      say(sentence)
  try:
    trained = train_run(config, env, run, say=say).trained
  except (BusyError, UnusableError) as error:
    say(str(error))
    raise SystemExit(1) from None
  except OSError as error:
    say(
      f'{error}; not complete, --run_dir={run.root} --resume goes on from what is saved'
    )
    raise SystemExit(1) from None
  except Stopped as stop:
    say(stopped_text(run, stop))
    raise SystemExit(128 + stop.number) from None
  except KeyboardInterrupt:
    say(f'stopped; metrics so far are in {run.metrics}')
    raise SystemExit(128 + signal.SIGINT) from None
  if not hosts.is_first():
    return
  if trained.evaluation is not None:
    print(returns.describe(config.run.task, trained.evaluation))
  for warning in broken_seeds(run):
    say(warning)


def say(text: str) -> None:
  """Tells people who is speaking."""
  tell(f'{PROGRAM}: {text}')


def run() -> None:
  """Entry point of the command."""
  main(sys.argv[1:])


if __name__ == '__main__':
  run()
