"""Small files that are replaced as a whole, never half."""

import errno
import json
import os
import pathlib
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
