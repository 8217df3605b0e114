"""Being asked to stop, and stopping where nothing is lost.

SIGTERM comes from schedulers and from `kill`, SIGUSR1 from Slurm some time before the
end (`--signal=USR1@120`), SIGINT from Ctrl-C. Each sets a flag that the loop reads
between two stages. The exit code is 128 plus the signal's number, as of a process that
the signal had ended: 0 would tell a scheduler that the run is complete.
"""

import contextlib
import os
import signal
import threading
import types
from collections.abc import Iterator

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


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


class StopRequest:
  """The flag.

  Attributes:
    number: the first signal that came, or None.
  """

  number: int | None = None


@contextlib.contextmanager
def watch(enabled: bool = True) -> Iterator[StopRequest]:
  """Takes the signals over for a while; outside they do what they did before.

  A second Ctrl-C does so already inside, for those who cannot wait.

  Args:
    enabled: False leaves the signals alone, as does any thread but the main one,
      where Python allows no handlers.
  """
  request = StopRequest()
  if not enabled or threading.current_thread() is not threading.main_thread():
    yield request
    return

  def handle(number: int, frame: types.FrameType | None) -> None:
    if request.number is None:
      request.number = number
      if number == signal.SIGINT:
        # Not `print`: the signal may have come inside of one.
        os.write(2, b'\nstopping after this step; Ctrl-C again to stop at once\n')
    elif number == signal.SIGINT:
      # It may be that of host calls, which wants to be the current one.
      again = previous[signal.SIGINT]
      signal.signal(number, again)
      if callable(again):
        again(number, frame)

  previous = {number: signal.getsignal(number) for number in _SIGNALS}
  try:
    for number in _SIGNALS:
      signal.signal(number, handle)
    yield request
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
