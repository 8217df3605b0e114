"""Files of results that several processes may add to."""

import contextlib
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rlfb_jax.training import files

LOCKS = pathlib.Path(__file__).parents[1] / 'runs'  # Nobody adds what is there to git.
PATIENCE = 60.0  # Seconds to wait for who saves the same file.


@contextlib.contextmanager
def alone(path: pathlib.Path, otherwise: str) -> Iterator[None]:
  """Keeps others from a file while it is read and written, or they would lose results.

  Args:
    path: of the file.
    otherwise: what to do where another process does not let go of it.

  Raises:
    SystemExit: with a sentence, if one does not.
  """
  LOCKS.mkdir(parents=True, exist_ok=True)
  with files.locked(LOCKS / f'{path.stem}.lock', PATIENCE) as free:
    if not free:
      raise SystemExit(
        f'another process has been saving {path.name} for {PATIENCE:.0f} s; {otherwise}'
        ' when it has ended.'
      )
    yield


def put(
  path: pathlib.Path,
  name: str,
  record: Any,
  otherwise: str,
  *,
  order: Sequence[str] = (),
  indent: int | None = 1,
  markdown: Callable[[dict[str, Any]], str] | None = None,
) -> dict[str, Any]:
  """Puts a record in the place of the last one of that name, beside all others.

  Args:
    path: of a JSON object, made where it is not there.
    name: of the record.
    record: JSON values.
    otherwise: see `alone`.
    order: in which records lie, all that there may be; () for that of their coming.
    indent: of the JSON.
    markdown: the table that is written beside it, of all records.

  Returns:
    All records.

  Raises:
    SystemExit: see `alone`.
  """
  with alone(path, otherwise):
    records = json.loads(path.read_text()) if path.exists() else {}
    records[name] = record
    if order:
      records = {n: records[n] for n in order if n in records}
    files.replace(path, (json.dumps(records, indent=indent) + '\n').encode())
    if markdown is not None:
      files.replace(path.with_suffix('.md'), markdown(records).encode())
  return records
