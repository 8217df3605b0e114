"""Works through jobs, each in a process of its own, whatever becomes of the others."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from rlfb_jax.sweeps import lock
from rlfb_jax.sweeps.cost import estimate
from rlfb_jax.sweeps.folder import JobFolder, State
from rlfb_jax.sweeps.jobs import Job
from rlfb_jax.sweeps.table import duration, together

# What a job's process says by its exit code, beside success and failure.
HELD_ELSEWHERE = 75
STOPPED = 128 + signal.SIGTERM

# Between two looks at jobs that other processes run.
LOOK_SECONDS = 5.0

_SHOWN_LINES, _SHOWN_BYTES = 30, 2**16


class Outcome(NamedTuple):
  """What became of a sweep's jobs, names.

  Attributes:
    done: complete now, those of earlier starts and of other processes included.
    failed: each with why, in a line.
  """

  done: list[str]
  failed: dict[str, str]


class Interrupted(KeyboardInterrupt):
  """Somebody asked for an end; the job under way has saved itself."""


class _StopRequest:
  """Whether somebody has asked for an end.

  Attributes:
    asked: whether.
    process: of the job under way, if there is one, which is asked to end, too.
  """

  asked = False
  process: subprocess.Popen[bytes] | None = None

  def ask(self) -> None:
    """Asks for an end."""
    self.asked = True
    if self.process is not None:
      self.process.send_signal(signal.SIGTERM)

  def check(self) -> None:
    """Raises `Interrupted` if somebody has asked."""
    if self.asked:
      raise Interrupted


Say = Callable[[str], None]


def work_through(
  jobs: Sequence[Job],
  out: pathlib.Path,
  command: Sequence[str],
  say: Say,
  poll_seconds: float = 0.2,
  look_seconds: float = LOOK_SECONDS,
) -> Outcome:
  """Runs jobs, one after the other, until each of them is done or has failed.

  What another process runs is left to it and looked at again when the rest is done: the
  process may be gone already, which shows only once its claim is stale, and nobody else
  might come to do its job.

  Args:
    jobs: in the order in which they are run.
    out: folder of the sweep.
    command: of a job's process; its folder and the number of this process, with which
      it shall end, are appended.
    say: told what happens, a line at a time.
    poll_seconds: between two looks at the process.
    look_seconds: between two looks at what other processes run.

  Raises:
    Interrupted: after SIGINT or SIGTERM, once the job's process has ended.
  """
  outcome = Outcome([], {})

  def settle(number: int, job: Job, again: bool) -> bool:
    """Runs the job if nobody does; whether it is done or has failed now."""
    request.check()
    folder = JobFolder(out / job.name)
    label = f'[{number}/{len(jobs)}] {job.name}'
    state = folder.state()
    if state is State.DONE:
      outcome.done.append(job.name)
      if again:
        say(f'{label} was done by another process; {_left(jobs, out)}')
      return True
    if state is State.FAILED and again:
      outcome.failed[job.name] = (_tail(folder.error, 0) or ['in another process'])[-1]
      say(f'{label} failed in another process; see {folder.error}')
      return True
    code, why, started = HELD_ELSEWHERE, '', time.monotonic()
    if state is not State.RUNNING:
      expected = estimate(job, jobs, taken(jobs, out))
      verb = 'starts' if state is State.MISSING else 'goes on'
      say(
        f'{label} {verb}: {len(job.rows)} runs, {together([expected])}'
        f' ({"from " * (expected.seconds is not None)}{expected.source})'
      )
      try:
        code, why = _run(job, folder, command, request, poll_seconds)
      except OSError as error:
        outcome.failed[job.name] = f'could not be started: {error}'
        say(f'{label} could not be started: {error}')
        return True
    if code == HELD_ELSEWHERE:
      if not again:
        say(f'{label} is being run by another process')
      return False
    if folder.finished() is not None:
      outcome.done.append(job.name)
      took = duration(time.monotonic() - started)
      say(f'{label} done in {took}; {_left(jobs, out)}')
    else:
      outcome.failed[job.name] = why
      see = f'; see {folder.error}' if folder.error.is_file() else ''
      say(f'{label} failed ({_describe(code)}){see}')
    return True

  with _hearing_signals() as request:
    left = [(n, job) for n, job in enumerate(jobs, 1) if not settle(n, job, False)]
    if left:
      say(
        f'waits for other processes to end {len(left)} of these jobs; what they leave'
        f' unfinished is taken over after {duration(lock.STALE_SECONDS)} at most'
      )
    while left:
      _wait(look_seconds, request, poll_seconds)
      left = [(n, job) for n, job in left if not settle(n, job, True)]
  return outcome


def taken(jobs: Sequence[Job], out: pathlib.Path) -> dict[str, float]:
  """Seconds of the jobs that have finished, by name."""
  found = ((job.name, JobFolder(out / job.name).finished()) for job in jobs)
  return {name: finished['seconds'] for name, finished in found if finished}


def _wait(seconds: float, request: _StopRequest, poll_seconds: float) -> None:
  end = time.monotonic() + seconds
  while time.monotonic() < end:
    request.check()
    time.sleep(poll_seconds)


def _run(
  job: Job,
  folder: JobFolder,
  command: Sequence[str],
  request: _StopRequest,
  poll_seconds: float,
) -> tuple[int, str]:
  """Does a job in a process; its exit code and, where it has failed, why.

  That is its last line; more are in `error.txt`, where the disk takes them.

  Raises:
    OSError: if it cannot be started.
    Interrupted: if somebody asked for an end, which the process has come to.
  """
  folder.write_order(job)
  folder.error.unlink(missing_ok=True)
  with open(folder.log, 'ab', buffering=0) as log:
    with contextlib.suppress(OSError):  # The disk may be full.
      log.write(f'--- {time.strftime("%Y-%m-%d %H:%M:%S %Z")}\n'.encode())
    begin = log.tell()
    # In a session of its own: Ctrl-C comes here only, and is passed on.
    request.process = process = subprocess.Popen(
      [*command, str(folder.root), str(os.getpid())],
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=log,
      start_new_session=True,
    )
    if request.asked:
      request.ask()  # While it was being started.
    while (code := process.poll()) is None:
      time.sleep(poll_seconds)
  request.process = None
  request.check()
  if code == HELD_ELSEWHERE or folder.finished() is not None:
    return code, ''
  lines = [f'{job.name}: {_describe(code)}', *_tail(folder.log, begin)]
  with contextlib.suppress(OSError):
    folder.error.write_text('\n'.join(lines) + '\n')
  # Who was killed had no last words.
  return code, lines[-1] if code > 0 else _describe(code)


def _tail(path: pathlib.Path, begin: int) -> list[str]:
  """The last lines of a file from a byte on; none where it cannot be read."""
  try:
    with open(path, 'rb') as file:
      file.seek(max(begin, path.stat().st_size - _SHOWN_BYTES))
      text = file.read(_SHOWN_BYTES).decode(errors='replace')
  except OSError:
    return []
  return text.splitlines()[-_SHOWN_LINES:]


@contextlib.contextmanager
def _hearing_signals() -> Iterator[_StopRequest]:
  """While open, SIGINT and SIGTERM ask for an end and do nothing else."""
  request = _StopRequest()
  numbers = (signal.SIGINT, signal.SIGTERM)
  before = [signal.signal(n, lambda number, frame: request.ask()) for n in numbers]
  try:
    yield request
  finally:
    for number, handler in zip(numbers, before, strict=True):
      signal.signal(number, handler)


def _describe(code: int) -> str:
  if code >= 0:
    return f'exit code {code}'
  name = signal.Signals(-code).name
  hint = '; was there too little memory?' if -code == signal.SIGKILL else ''
  return f'ended by {name}{hint}'


def _left(jobs: Sequence[Job], out: pathlib.Path) -> str:
  seconds = taken(jobs, out)
  left = [job for job in jobs if job.name not in seconds]
  if not left:
    return 'none left'
  times = [estimate(job, jobs, seconds) for job in left]
  return f'{len(left)} left, {together(times)}'
