"""Metrics of a run: lines of JSON for programs, TensorBoard events for people.

Metrics arrive with a leading seed axis and are stored that way: a number per seed,
never only a mean. What is not finite is written as null, so that every line stays
JSON by the standard.
"""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from rlfb_jax.training import files
from rlfb_jax.training.progress import tell
from rlfb_jax.training.run_dir import METRICS, RunDir, read_rows, row_names

if TYPE_CHECKING:
  from rlfb_jax.training.events import Events

Values = Mapping[str, Any]  # name -> array [] or [S] (or [S, ...]).

# Metric -> how a row's lines are counted, and what the count means. Lines of phases
# that do not have it hold NaN.
_BROKEN: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
  'non_finite_updates': (
    lambda totals: totals.max(axis=0),
    'left out {:.0f} updates whose gradient was not finite',
  ),
  'reward_non_finite': (
    lambda counts: counts.sum(axis=0),
    'left out {:.0f} steps of the reward whose loss was not finite',
  ),
  'kl/gradient_dropped': (
    lambda shares: (shares > 0).sum(axis=0),
    'dropped repulsions that were not finite in {:.0f} chunks',
  ),
}


class MetricsWriter:
  """Writes both files; a line survives the process when `write` returns.

  Unless the disk is full: then people are told, lines wait in memory for the next
  `write` or `sync`, and TensorBoard gets no more events.
  """

  def __init__(
    self,
    run: RunDir,
    tensorboard: bool = True,
    after: int | None = None,
    say: Callable[[str], None] = tell,
  ):
    """Opens the files of `run`.

    Args:
      run: its folder.
      tensorboard: whether to write events.
      after: where the run goes on, in environment steps: what was written for later
        steps is dropped, for it will be written again. None appends to all there is.
      say: how people hear of damage.
    """
    _keep_lines(run.metrics, math.inf if after is None else after, say)
    self._say = say
    self._file = open(run.metrics, 'ab', buffering=0)  # noqa: SIM115
    self._waiting = b''
    self._events = _open_events(run, after) if tensorboard else None
    self._names: list[str] = []
    if tensorboard and run.rows.is_file():
      self._names = row_names(read_rows(run))

  def write(self, env_steps: int, values: Values) -> None:
    """Appends one line.

    Args:
      env_steps: control steps taken so far by each seed.
      values: name -> scalar, or array that leads with the seed axis [S].
    """
    arrays = {name: np.asarray(value) for name, value in values.items()}
    record = {'env_steps': int(env_steps)}
    record |= {name: to_json(array) for name, array in arrays.items()}
    waited = bool(self._waiting)
    self._waiting += json.dumps(record, allow_nan=False).encode() + b'\n'
    try:
      self._flush()
    except OSError as error:
      if not waited:
        self._say(f'metrics cannot be written ({error.strerror}) and wait in memory.')
    if self._events is not None:
      try:
        _write_events(self._events, arrays, int(env_steps), self._names)
      except OSError as error:
        self._say(f'TensorBoard gets no more events ({error.strerror}).')
        self._events.close()
        self._events = None

  def sync(self) -> None:
    """Puts all lines on disk, where they survive the machine too.

    Raises:
      OSError: if there is no room for them.
    """
    self._flush()
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes both files; lines that wait are given up, see `sync`."""
    with contextlib.suppress(OSError):
      self._flush()
    self._file.close()
    if self._events is not None:
      self._events.close()

  def __enter__(self) -> 'MetricsWriter':
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self.close()

  def _flush(self) -> None:
    """Writes what waits; a full disk may take a part of it."""
    while self._waiting:
      self._waiting = self._waiting[self._file.write(self._waiting) :]


def _open_events(run: RunDir, after: int | None) -> 'Events':
  # Not imported before: tensorboardX loads all of PyTorch where that is installed.
  from rlfb_jax.training.events import Events

  return Events(run.tensorboard, None if after is None else after + 1)


def _write_events(
  events: 'Events',
  arrays: Mapping[str, np.ndarray],
  env_steps: int,
  names: Sequence[str],
) -> None:
  """The mean over finite rows, and each row's own value where there are few.

  Rows that `names` does not fit are called by their index.
  """
  for name, array in arrays.items():
    if array.ndim > 1 or not np.issubdtype(array.dtype, np.number):
      continue
    finite = array[np.isfinite(array)]
    if finite.size:
      events.scalar(name, float(finite.mean()), env_steps)
    if array.ndim == 1 and 1 < array.size <= 10:
      fits = len(names) == array.size
      rows = names if fits else [f'row_{i}' for i in range(array.size)]
      for row, value in zip(rows, array, strict=True):
        if np.isfinite(value):  # TensorBoard draws nothing else, and says so each time.
          events.scalar(f'{row}/{name}', float(value), env_steps)
  events.flush()


def _keep_lines(path: pathlib.Path, after: float, say: Callable[[str], None]) -> None:
  """Drops lines of steps later than `after`, and those that are none.

  A last one cut short is what a kill leaves. Before others there should be none: it is
  put aside, for people to look at.
  """
  if not path.is_file():
    return
  lines = path.read_bytes().splitlines(keepends=True)
  kept: list[bytes] = []
  garbled: list[int] = []  # Indices; the last of them have no line after them.
  last = -1
  for index, line in enumerate(lines):
    record = _record(line) if line.endswith(b'\n') else None
    if record is None:
      garbled.append(index)
    elif record['env_steps'] > after:
      break
    else:
      kept.append(line)
      last = index
  if len(kept) == len(lines):
    return
  within = [index for index in garbled if index < last]
  if within:
    aside = path.with_name(f'{path.name}.damaged')
    with open(aside, 'ab') as file:
      file.writelines(lines[index] for index in within)
    say(
      f'{_numbers(within)} of {path} cannot be read; left out, and put aside in'
      f' {aside.name}.'
    )
  if len(within) < len(garbled):
    say(f'{_numbers(garbled[len(within) :])} of {path} is cut short; left out.')
  files.replace(path, b''.join(kept))


def _record(line: bytes) -> dict[str, Any] | None:
  """What a line says; None where it is not one that `write` has written whole."""
  try:
    record = json.loads(line)
  except ValueError:  # Bytes that are no text, too.
    return None
  whole = isinstance(record, dict) and isinstance(record.get('env_steps'), int)
  return record if whole else None


def _numbers(indices: Sequence[int]) -> str:
  """`line 3`, or `lines 3, 7`, as editors count."""
  plural = 's' if len(indices) > 1 else ''
  return f'line{plural} {", ".join(str(index + 1) for index in indices)}'


def to_json(value: Any) -> Any:
  """Nested lists of plain numbers; what is not finite becomes None.

  Args:
    value: array, NumPy or Python scalar, or string.
  """
  array = np.asarray(value)
  if not np.issubdtype(array.dtype, np.floating):
    return array.tolist()
  if array.ndim:
    return [to_json(v) for v in array]
  number = float(array)
  if not math.isfinite(number):
    return None
  # Shortest digits that give the float32 back, not those of its double.
  return float(str(array[()])) if array.dtype == np.float32 else number


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """Reads `metrics.jsonl` back, null as NaN.

  Args:
    path: the file, or the run's folder.

  Returns:
    name -> array [lines, ...]; a line without that name gives NaN. A last line cut
    short by a crash is left out.

  Raises:
    ValueError: if a line before the last cannot be read.
  """
  path = pathlib.Path(path)
  path = path / METRICS if path.is_dir() else path
  lines = path.read_bytes().splitlines()
  records = []
  for number, line in enumerate(lines, 1):
    record = _record(line)
    if record is not None:
      records.append(record)
    elif number < len(lines):
      raise ValueError(
        f'line {number} of {path} cannot be read; take it out to read the others.'
      )
  return {name: _column(records, name) for name in _names(records)}


def broken(columns: Mapping[str, np.ndarray]) -> list[tuple[int, str]]:
  """What was not finite in a run: the index of its row, and what was done about it.

  Args:
    columns: of `read`.
  """
  return [
    (index, text.format(total))
    for name, (count, text) in _BROKEN.items()
    if name in columns and columns[name].ndim == 2
    for index, total in enumerate(count(np.nan_to_num(columns[name])))
    if total
  ]


def _names(records: list[dict[str, Any]]) -> list[str]:
  return list(dict.fromkeys(name for record in records for name in record))


def _column(records: list[dict[str, Any]], name: str) -> np.ndarray:
  present = [np.asarray(to_nan(r[name])) for r in records if name in r]
  if len(present) == len(records):
    return np.stack(present)
  gap = np.full(present[0].shape, np.nan)
  rows = [np.asarray(to_nan(r[name])) if name in r else gap for r in records]
  return np.stack(rows)


def to_nan(value: Any) -> Any:
  """Nested lists with NaN where JSON has null."""
  if isinstance(value, list):
    return [to_nan(v) for v in value]
  return math.nan if value is None else value
