"""One process a run: two would drop each other's lines and unfinished checkpoints."""

import contextlib
from collections.abc import Callable, Iterator

from rlfb_jax.training import files, hosts
from rlfb_jax.training.progress import tell
from rlfb_jax.training.run_dir import RunDir


class BusyError(RuntimeError):
  """Another process works on the run; a sentence says so."""


@contextlib.contextmanager
def held(
  run: RunDir, claimed: bool = False, say: Callable[[str], None] = tell
) -> Iterator[None]:
  """Keeps other processes from the run while the body runs; all hosts must ask.

  Args:
    run: whose folder the first host locks.
    claimed: whether this process was given the run in another way, which counts more:
      on shared storage a machine that is gone may still hold the lock.
    say: how people hear of a lock that does not count.

  Raises:
    BusyError: if another process has the lock.
  """
  with contextlib.ExitStack() as stack:
    # The other hosts wait below for what the first has found.
    busy = hosts.is_first() and not stack.enter_context(files.locked(run.lock))
    if hosts.anywhere(busy):
      if not claimed:
        raise BusyError(
          f'--run_dir={run.root} is in use by another process; wait until it has ended,'
          ' or name another folder.'
        )
      if busy:
        say(f'{run.root} is locked by another process; goes on, for the job is ours.')
    yield
