"""Who works on a job: locks that need no coordinator and outlive no process.

A folder holds numbered claims, `0`, `1`, ...; the highest is the one that counts. A
claim is alive while its process touches it. To take over a dead one is to create the
next number, which the file system grants to one process only; nothing is ever renamed
or removed, so that nobody can remove the claim of somebody else.
"""

import contextlib
import json
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

BEAT_SECONDS = 5.0
# Without a beat for so long a claim is dead, wherever its process may be. Clocks of
# machines that share a folder must agree to well within this.
STALE_SECONDS = 60.0


class Lost(RuntimeError):
  """Another process has taken the job over, believing this one dead."""


class Process(NamedTuple):
  """A process in a way that a process number used again does not repeat.

  Attributes:
    world: boot of the machine and process namespace; '' where unknown.
    pid: number in it.
    started: clock ticks since boot.
  """

  world: str
  pid: int
  started: int


class Lock:
  """A claim on a job that this process holds."""

  def __init__(self, path: pathlib.Path):
    """Held from now on; see `acquire`."""
    self._path = path

  def beat(self) -> None:
    """Says that the process is alive.

    Raises:
      Lost: if another has taken over.
    """
    if _next_number(self._path.parent) != int(self._path.name) + 1:
      raise Lost(f'{self._path.parent} was taken over by another process.')
    os.utime(self._path)

  def release(self) -> None:
    """The job is free for whoever asks next."""
    os.utime(self._path, (0, 0))


def acquire(folder: pathlib.Path, stale_seconds: float = STALE_SECONDS) -> Lock | None:
  """Claims a job, or None if a living process holds it.

  Args:
    folder: for claims, of this job alone; made where there is none.
    stale_seconds: after which a claim without a beat is dead.
  """
  folder.mkdir(parents=True, exist_ok=True)
  # One look at the folder decides both whether its claim is dead and which number comes
  # next: a second look would count a claim that was made in between.
  number = _next_number(folder)
  if _is_alive(folder, number - 1, stale_seconds):
    return None
  path = folder / str(number)
  try:
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
  except FileExistsError:
    return None
  with os.fdopen(handle, 'w') as file:
    file.write(json.dumps(_describe(os.getpid())._asdict()))
  return Lock(path)


def is_held(folder: pathlib.Path, stale_seconds: float = STALE_SECONDS) -> bool:
  """Whether a living process has the job."""
  return _is_alive(folder, _next_number(folder) - 1, stale_seconds)


def _is_alive(folder: pathlib.Path, number: int, stale_seconds: float) -> bool:
  if number < 0:
    return False
  path = folder / str(number)
  if time.time() - path.stat().st_mtime > stale_seconds:
    return False
  try:
    holder = Process(**json.loads(path.read_text()))
  except (ValueError, TypeError):
    return True  # Being written.
  ours = _describe(os.getpid())
  if not ours.world or holder.world != ours.world:
    return True  # On another machine: only the beat can tell.
  return _describe(holder.pid) == holder


@contextlib.contextmanager
def beating(
  lock: Lock, on_lost: Callable[[], None], beat_seconds: float = BEAT_SECONDS
) -> Iterator[None]:
  """Keeps a claim alive from a thread while the body runs, then releases it.

  Args:
    lock: held by this process.
    on_lost: called in the thread where another has taken over; should end the process
      without another write.
    beat_seconds: between two beats.
  """
  stop = threading.Event()

  def beat() -> None:
    while not stop.wait(beat_seconds):
      try:
        lock.beat()
      except Lost:
        on_lost()
        return
      except OSError:
        continue  # A hiccup of a shared file system; the next beat may get through.

  thread = threading.Thread(target=beat, name='lock', daemon=True)
  thread.start()
  try:
    yield
  finally:
    stop.set()
    thread.join()
    lock.release()


def _next_number(folder: pathlib.Path) -> int:
  if not folder.is_dir():
    return 0
  numbers = [int(name) for name in os.listdir(folder) if name.isdigit()]
  return max(numbers, default=-1) + 1


def _describe(pid: int) -> Process:
  """The process with this number here and now; with another start if there is none."""
  try:
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    world = f'{boot} {os.readlink("/proc/self/ns/pid")}'
  except OSError:
    return Process('', pid, 0)
  try:
    # After the name, which may hold spaces and ends at the last bracket.
    fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
  except OSError:
    return Process(world, pid, -1)
  # A zombie holds nothing.
  return Process(world, pid, -1 if fields[0] == 'Z' else int(fields[19]))
