"""One process a run: two would drop each other's lines and unfinished checkpoints.

The system lets go of the lock when its process ends, whatever ends it, so that nobody
ever waits for a dead one. The file stays: who removed it could remove that of another.
"""

import contextlib
import fcntl
from collections.abc import Callable, Iterator

from rlfb_jax.training import hosts
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
    busy = False
    if hosts.is_first():
      try:
        file = stack.enter_context(open(run.lock, 'ab'))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        busy = True
      except OSError:
        # No locks on this file system, or no room for a file: as if nobody else were
        # there. Other hosts wait below for what this one has found.
        pass
    if hosts.anywhere(busy):
      if not claimed:
        raise BusyError(
          f'--run_dir={run.root} is in use by another process; wait until it has ended,'
          ' or name another folder.'
        )
      if busy:
        say(f'{run.root} is locked by another process; goes on, for the job is ours.')
    yield
