"""Works through jobs, each in a process of its own, whatever becomes of the others."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from rlfb_jax.sweeps.cost import estimate
from rlfb_jax.sweeps.folder import JobFolder, State
from rlfb_jax.sweeps.jobs import Job
from rlfb_jax.sweeps.table import duration

# What a job's process says by its exit code, beside success and failure.
HELD_ELSEWHERE = 75
STOPPED = 128 + signal.SIGTERM

_SHOWN_LINES = 30


class Outcome(NamedTuple):
  """What became of a sweep's jobs, names.

  Attributes:
    done: complete now, those of earlier starts included.
    failed: with an `error.txt` in their folder.
    elsewhere: other processes work on them.
  """

  done: list[str]
  failed: list[str]
  elsewhere: list[str]


class Interrupted(KeyboardInterrupt):
  """Somebody asked for an end; the job under way has saved itself."""


Say = Callable[[str], None]


def work_through(
  jobs: Sequence[Job],
  out: pathlib.Path,
  command: Sequence[str],
  say: Say,
  poll_seconds: float = 0.2,
) -> Outcome:
  """Runs what is neither done nor under way elsewhere, one job after the other.

  Args:
    jobs: in the order in which they are run.
    out: folder of the sweep.
    command: of a job's process; its folder and the number of this process, with which
      it shall end, are appended.
    say: told what happens, a line at a time.
    poll_seconds: between two looks at the process.

  Raises:
    Interrupted: after SIGINT or SIGTERM, once the job's process has ended.
  """
  outcome = Outcome([], [], [])
  for number, job in enumerate(jobs, 1):
    folder = JobFolder(out / job.name)
    label = f'[{number}/{len(jobs)}] {job.name}'
    state = folder.state()
    if state is State.DONE:
      outcome.done.append(job.name)
      continue
    if state is State.RUNNING:
      outcome.elsewhere.append(job.name)
      say(f'{label} is being run by another process')
      continue
    expected = estimate(job, jobs, taken(jobs, out))
    verb = 'starts' if state is State.MISSING else 'goes on'
    say(
      f'{label} {verb}: {len(job.rows)} runs, about {duration(expected.seconds)}'
      f' (from {expected.source})'
    )
    started = time.monotonic()
    code = _run(job, folder, command, poll_seconds)
    if code == HELD_ELSEWHERE:
      outcome.elsewhere.append(job.name)
      say(f'{label} is being run by another process')
    elif folder.finished() is not None:
      outcome.done.append(job.name)
      say(f'{label} done in {duration(time.monotonic() - started)}; {_left(jobs, out)}')
    else:
      outcome.failed.append(job.name)
      say(f'{label} failed ({_describe(code)}); see {folder.error}')
  return outcome


def taken(jobs: Sequence[Job], out: pathlib.Path) -> dict[str, float]:
  """Seconds of the jobs that have finished, by name."""
  found = ((job.name, JobFolder(out / job.name).finished()) for job in jobs)
  return {name: finished['seconds'] for name, finished in found if finished}


def _run(
  job: Job, folder: JobFolder, command: Sequence[str], poll_seconds: float
) -> int:
  folder.write_order(job)
  folder.error.unlink(missing_ok=True)
  with open(folder.log, 'ab') as log:
    log.write(f'--- {time.strftime("%Y-%m-%d %H:%M:%S %Z")}\n'.encode())
    log.flush()
    begin = log.tell()
    # In a session of its own: Ctrl-C comes here only, and is passed on once.
    process = subprocess.Popen(
      [*command, str(folder.root), str(os.getpid())],
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=log,
      start_new_session=True,
    )
    with _passing_on(process) as asked_to_stop:
      while (code := process.poll()) is None:
        time.sleep(poll_seconds)
  if asked_to_stop:
    raise Interrupted
  if code not in (0, HELD_ELSEWHERE) and folder.finished() is None:
    tail = folder.log.read_bytes()[begin:].decode(errors='replace').splitlines()
    lines = [f'{job.name}: {_describe(code)}', *tail[-_SHOWN_LINES:]]
    folder.error.write_text('\n'.join(lines) + '\n')
  return code


@contextlib.contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
  """While open, hands SIGINT and SIGTERM to a job, which saves itself and ends."""
  received: list[int] = []

  def pass_on(number: int, frame: object) -> None:
    received.append(number)
    process.send_signal(signal.SIGTERM)

  numbers = (signal.SIGINT, signal.SIGTERM)
  before = [signal.signal(number, pass_on) for number in numbers]
  try:
    yield received
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
  time_left = sum(estimate(job, jobs, seconds).seconds for job in left)
  return f'{len(left)} left, about {duration(time_left)}'
