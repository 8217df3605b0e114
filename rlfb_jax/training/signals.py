"""Being asked to stop, and stopping where nothing is lost.

SIGTERM comes from schedulers and from `kill`, SIGUSR1 from Slurm some time before the
end (`--signal=USR1@120`), SIGINT from Ctrl-C. Each sets a flag that the loop reads
between two stages. A compiled program cannot be interrupted, and Python handles no
signal while the main thread is in one; so a thread hears of signals, too, and ends the
process where the loop does not come in time. SIGUSR1, a warning, leaves it its time.
The exit code is 128 plus the signal's number, as of a process that the signal had
ended: 0 would tell a scheduler that the run is complete.
"""

import contextlib
import math
import os
import select
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_URGENT = (signal.SIGTERM, signal.SIGINT)
_HINT = b'\nstopping after this step; Ctrl-C again to stop at once\n'


class Stopped(KeyboardInterrupt):
  """A run has stopped because it was asked to, and was saved if the disk took it.

  Attributes:
    number: the signal's.
    env_steps: where the run goes on: at the newest checkpoint that is whole.
  """

  def __init__(self, number: int, env_steps: int):
    super().__init__(f'{signal.Signals(number).name} at step {env_steps}')
    self.number = number
    self.env_steps = env_steps


def leave(stop: Stopped) -> NoReturn:
  """Ends the process here, with the signal's code; what is not saved is lost."""
  with contextlib.suppress(OSError, ValueError):  # There may be nobody to tell.
    sys.stderr.flush()
  os._exit(128 + stop.number)


class StopRequest:
  """The flag.

  Attributes:
    number: the first signal that came, or None.
  """

  number: int | None = None

  def __init__(self) -> None:
    """Nobody has asked yet."""
    # Who ends the run holds it: the loop, which saves, or the thread, which leaves.
    self.ending = threading.Lock()

  def answer(self) -> None:
    """The loop stops: from now on the process is not ended beneath it."""
    self.ending.acquire()


@contextlib.contextmanager
def watch(
  patience: float = math.inf, leave: Callable[[int], object] = lambda number: None
) -> Iterator[StopRequest]:
  """Takes the signals over for a while; outside they do what they did before.

  A second Ctrl-C does not wait, for those who cannot. In any thread but the main one,
  where Python allows no handlers, signals are left alone.

  Args:
    patience: seconds from SIGTERM or SIGINT on in which the request must be answered.
    leave: called in another thread with the signal's number when it was not; should
      end the process, as the loop does not get to answer before it returns.
  """
  request = StopRequest()
  if threading.current_thread() is not threading.main_thread():
    yield request
    return

  def handle(number: int, frame: types.FrameType | None) -> None:
    if request.number is None:
      request.number = number
    elif number == signal.SIGINT:
      # It may be that of host calls, which wants to be the current one.
      again = previous[signal.SIGINT]
      signal.signal(number, again)
      if callable(again):
        again(number, frame)

  previous = {number: signal.getsignal(number) for number in _SIGNALS}

  def leave_unanswered(number: int) -> None:
    if request.ending.acquire(blocking=False):
      try:
        leave(number)
      finally:
        request.ending.release()

  with _listening(patience, leave_unanswered):
    try:
      for number in _SIGNALS:
        signal.signal(number, handle)
      yield request
    finally:
      for number, handler in previous.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def _listening(seconds: float, leave: Callable[[int], None]) -> Iterator[None]:
  """Hears signals in a thread, whatever the main thread does.

  It leaves when an urgent one is so many seconds old, or with a second Ctrl-C.
  """
  reader, writer = socket.socketpair()

  def listen() -> None:
    urgent, interrupts, end = None, 0, math.inf
    while True:
      left = None if math.isinf(end) else max(end - time.monotonic(), 0.0)
      numbers = b''
      if select.select([reader], [], [], left)[0]:
        numbers = reader.recv(4096)
        if not numbers:
          return  # The other end is closed.
      for number in filter(_URGENT.__contains__, numbers):
        interrupts += number == signal.SIGINT
        if urgent is None:
          urgent, end = number, time.monotonic() + seconds
          if number == signal.SIGINT:
            with contextlib.suppress(OSError):  # There may be nobody to tell.
              os.write(2, _HINT)
      if urgent is not None and (interrupts > 1 or time.monotonic() >= end):
        leave(urgent)
        return

  thread = threading.Thread(target=listen, name='signals', daemon=True)
  writer.setblocking(False)
  before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
  thread.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(before)
    writer.close()  # Which ends the thread.
    thread.join()
    reader.close()
