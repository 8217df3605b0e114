"""Small files that are replaced as a whole, never half."""

import json
import os
import pathlib
from typing import Any


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes indented JSON, see `replace`."""
  replace(path, (json.dumps(value, indent=2) + '\n').encode())


def replace(path: pathlib.Path, content: bytes) -> None:
  """Writes `path` so that a reader finds the old file or the new one, whole.

  It is on disk when this returns, also where the machine stops right after.
  """
  new = path.with_name(f'{path.name}.new')
  with open(new, 'wb') as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
  os.replace(new, path)
