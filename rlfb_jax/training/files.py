"""Small files that are replaced as a whole, never half, and locks on files."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

# What file systems say that cannot put a folder on disk by itself.
_NO_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes indented JSON, see `replace`."""
  replace(path, (json.dumps(value, indent=2) + '\n').encode())


def replace(path: pathlib.Path, content: bytes) -> None:
  """Writes `path` so that a reader finds the old file or the new one, whole.

  It is on disk when this returns, under its name, also where the machine stops right
  after.
  """
  new = path.with_name(f'{path.name}.new')
  with open(new, 'wb') as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
  os.replace(new, path)
  _sync_folder(path.parent)


@contextlib.contextmanager
def locked(path: pathlib.Path, patience: float = 1.0) -> Iterator[bool]:
  """Locks a file, made where there is none, while the body runs.

  The system lets go of the lock when its process ends, whatever ends it, so that nobody
  waits for a dead one. The file stays: who removed it could remove that of another.

  Args:
    path: of the file, which has no other use.
    patience: seconds to wait for who holds it.

  Yields:
    Whether nobody else holds it. Where files cannot be locked, or not be made, it is as
    if nobody else were there.
  """
  with contextlib.ExitStack() as stack:
    free = True
    try:
      file = stack.enter_context(open(path, 'ab'))
      free = _lock(file.fileno(), time.monotonic() + patience)
    except OSError:
      pass
    yield free


def _lock(handle: int, until: float) -> bool:
  while True:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      if time.monotonic() > until:
        return False
      time.sleep(0.01)
    else:
      return True


def _sync_folder(path: pathlib.Path) -> None:
  """Puts the names in a folder on disk; a file's own sync does not."""
  folder = os.open(path, os.O_RDONLY)
  try:
    os.fsync(folder)
  except OSError as error:
    if error.errno not in _NO_FOLDERS:
      raise
  finally:
    os.close(folder)
