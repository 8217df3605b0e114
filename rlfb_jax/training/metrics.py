"""Metrics of a run: lines of JSON for programs, TensorBoard events for people.

Metrics arrive with a leading seed axis and are stored that way: a number per seed,
never only a mean. What is not finite is written as null, so that every line stays
JSON by the standard.
"""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
import tensorboardX

from rlfb_jax.training import files
from rlfb_jax.training.run_dir import METRICS, RunDir

Values = Mapping[str, Any]  # name -> array [] or [S] (or [S, ...]).


class MetricsWriter:
  """Writes both files; a line survives the process when `write` returns."""

  def __init__(self, run: RunDir, tensorboard: bool = True, after: int | None = None):
    """Opens the files of `run`.

    Args:
      run: its folder.
      tensorboard: whether to write events.
      after: where the run goes on, in environment steps: what was written for later
        steps is dropped, for it will be written again. None appends to all there is.
    """
    if after is not None:
      _keep_lines(run.metrics, after)
    self._file = open(run.metrics, 'a', encoding='utf-8')  # noqa: SIM115
    self._events = None
    if tensorboard:
      # TensorBoard leaves out what earlier files say of steps from `purge_step` on. A
      # name of its own: two sessions may start in the same second.
      session = len(list(run.tensorboard.iterdir()))
      self._events = tensorboardX.SummaryWriter(
        str(run.tensorboard),
        purge_step=None if after is None or not session else after + 1,
        filename_suffix=f'.{session}',
      )

  def write(self, env_steps: int, values: Values) -> None:
    """Appends one line.

    Args:
      env_steps: control steps taken so far by each seed.
      values: name -> scalar, or array that leads with the seed axis [S].
    """
    arrays = {name: np.asarray(value) for name, value in values.items()}
    record = {'env_steps': int(env_steps)}
    record |= {name: to_json(array) for name, array in arrays.items()}
    self._file.write(json.dumps(record, allow_nan=False) + '\n')
    self._file.flush()
    if self._events is not None:
      for name, array in arrays.items():
        self._write_events(name, array, int(env_steps))
      self._events.flush()

  def sync(self) -> None:
    """Puts all lines on disk, where they survive the machine too."""
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes both files."""
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

  def _write_events(self, name: str, array: np.ndarray, env_steps: int) -> None:
    """The mean over finite seeds, and each seed's own value where there are few."""
    assert self._events is not None
    if array.ndim > 1 or not np.issubdtype(array.dtype, np.number):
      return
    finite = array[np.isfinite(array)]
    if finite.size:
      self._events.add_scalar(name, float(finite.mean()), env_steps)
    if array.ndim == 1 and 1 < array.size <= 10:
      for seed, value in enumerate(array):
        self._events.add_scalar(f'seed_{seed}/{name}', float(value), env_steps)


def _keep_lines(path: pathlib.Path, after: int) -> None:
  """Drops lines of steps later than `after`, and a last one cut short."""
  if not path.is_file():
    return
  kept = []
  for line in path.read_bytes().splitlines(keepends=True):
    if not line.endswith(b'\n') or json.loads(line)['env_steps'] > after:
      break
    kept.append(line)
  files.replace(path, b''.join(kept))


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
    ValueError: if a line before the last is not JSON.
  """
  path = pathlib.Path(path)
  path = path / METRICS if path.is_dir() else path
  lines = path.read_text(encoding='utf-8').splitlines()
  records = []
  for number, line in enumerate(lines, 1):
    try:
      records.append(json.loads(line))
    except json.JSONDecodeError:
      if number < len(lines):
        raise ValueError(f'{path} line {number} is not JSON.') from None
  return {name: _column(records, name) for name in _names(records)}


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
