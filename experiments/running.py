"""Training in a script: what ends it is said in one sentence, as `rlfb-train` does."""

import contextlib
import signal
from collections.abc import Iterator, Sequence

import rlfb_jax
from rlfb_jax.bin import flags, launch
from rlfb_jax.training import run_dir
from rlfb_jax.training.checkpoint import UnusableError
from rlfb_jax.training.progress import tell
from rlfb_jax.training.run import Finished, stopped_text, train_run
from rlfb_jax.training.run_lock import BusyError
from rlfb_jax.training.signals import Stopped


def train(program: str, argv: Sequence[str]) -> Finished:
  """Trains the run that these flags mean, or goes on with it.

  Args:
    program: name of the script, as people know it.
    argv: flags of `rlfb-train`.

  Raises:
    SystemExit: if flags are wrong, the run cannot go on, or a signal asked for a stop;
      the sentence has been said.
  """
  with flags.usage_errors(program):
    begun = launch.begin(argv)
  if run_dir.read_finished(begun.run) is not None:
    return rlfb_jax.train(argv)  # Only reads what is there.
  with said(program, begun.run):
    return train_run(*begun)


@contextlib.contextmanager
def said(program: str, run: run_dir.RunDir) -> Iterator[None]:
  """Ends the program with a sentence where a run of it does not come to its end.

  Raises:
    SystemExit: with code 1, or 128 and the signal's number.
  """
  try:
    yield
  except (BusyError, UnusableError, OSError) as error:
    tell(f'{program}: {error}')
    raise SystemExit(1) from None
  except Stopped as stop:
    tell(f'{program}: {stopped_text(run, stop)}')
    raise SystemExit(128 + stop.number) from None
  except KeyboardInterrupt:
    tell(f'{program}: stopped; metrics so far are in {run.metrics}')
    raise SystemExit(128 + signal.SIGINT) from None
