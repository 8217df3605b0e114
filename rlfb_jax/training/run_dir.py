"""The folder that a run leaves behind.

flags.txt      every option's value; `--flagfile=RUN/flags.txt` repeats the run
manifest.json  versions, device, precision, revision, command line
rows.json      which seed, under which flags of its own, each row of the metrics is
metrics.jsonl  one JSON object a line
tensorboard/   events: means over the rows, and each row's own where there are few
checkpoints/   the whole state, to go on from
policy/        the exported policy
report/        the evaluation at the end, and what rlfb-evaluate has found and filmed
finished.json  written last: the run is complete
lock           of the process that works on the run, see `run_lock.py`; empty
"""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rlfb_jax.training import files
from rlfb_jax.training import manifest as manifest_lib

FLAGS = 'flags.txt'
MANIFEST = 'manifest.json'
METRICS = 'metrics.jsonl'
ROWS = 'rows.json'
FINISHED = 'finished.json'
LOCK = 'lock'


class Row(NamedTuple):
  """One of the runs that share a program.

  Attributes:
    seed: its randomness.
    flags: flag -> value where it differs from the run's flags; {} for a plain run.
  """

  seed: int
  flags: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class RunDir:
  """Paths inside one run's folder; folders are made when first asked for."""

  root: pathlib.Path

  @property
  def flags(self) -> pathlib.Path:
    """The options in use, one flag a line."""
    return self.root / FLAGS

  @property
  def manifest(self) -> pathlib.Path:
    """What the run was made with."""
    return self.root / MANIFEST

  @property
  def metrics(self) -> pathlib.Path:
    """One JSON object a line."""
    return self.root / METRICS

  @property
  def rows(self) -> pathlib.Path:
    """What each row of the metrics is, see `read_rows`."""
    return self.root / ROWS

  @property
  def checkpoints(self) -> pathlib.Path:
    """The whole state at some steps; there may be none."""
    return self.root / 'checkpoints'

  @property
  def lock(self) -> pathlib.Path:
    """Locked by the process that works on the run, see `run_lock.py`."""
    return self.root / LOCK

  @property
  def finished(self) -> pathlib.Path:
    """Is there once the run is complete, see `read_finished`."""
    return self.root / FINISHED

  @property
  def tensorboard(self) -> pathlib.Path:
    """Event files."""
    return self._folder('tensorboard')

  @property
  def policy(self) -> pathlib.Path:
    """The exported policy."""
    return self._folder('policy')

  @property
  def report(self) -> pathlib.Path:
    """Evaluations and a clip."""
    return self._folder('report')

  def _folder(self, name: str) -> pathlib.Path:
    path = self.root / name
    path.mkdir(exist_ok=True)
    return path


def create(
  path: str,
  name: str,
  flag_lines: Sequence[str] = (),
  command: Sequence[str] | None = None,
  rows: Sequence[Row] = (),
  parent: str = 'runs',
) -> RunDir:
  """Makes a new run's folder with its flags and manifest.

  Args:
    path: the folder, or '' for the first free `parent/name`, `parent/name-2`, ...
    name: what to call the run where `path` is empty, e.g. `walker_walk-rbrl`.
    flag_lines: lines of `flags.txt`.
    command: command line for the manifest; this process's own by default.
    rows: one per row of the metrics' leading axis.
    parent: where runs without a path are kept.

  Raises:
    ValueError: if `path` holds a run already, or cannot be made or written to.
  """
  root = pathlib.Path(path or parent)
  try:
    root.mkdir(parents=True, exist_ok=True)
    if not path:
      root = _make_free(root, name)
  except OSError as error:
    raise ValueError(
      f'--run_dir={root} cannot be made ({error.strerror}); name another folder.'
    ) from None
  run = RunDir(root)
  records = [{'seed': int(row.seed), 'flags': dict(row.flags)} for row in rows]
  # Another process may make the same run at this moment.
  with files.locked(run.lock) as free:
    if not free or run.manifest.exists() or run.metrics.exists():
      raise ValueError(
        f'--run_dir={root} holds a run already; name another folder or remove this one.'
      )
    try:
      run.flags.write_text(''.join(f'{line}\n' for line in flag_lines))
      files.write_json(run.rows, records)
      # Last: a folder with a manifest is a run.
      manifest_lib.write(run.manifest, command)
    except OSError as error:
      raise ValueError(
        f'--run_dir={root} cannot be written to ({error.strerror}); name another'
        ' folder.'
      ) from None
  return run


def read_rows(run: RunDir) -> list[Row]:
  """What each row of the metrics' leading axis is."""
  return [Row(r['seed'], r['flags']) for r in json.loads(run.rows.read_text())]


def row_names(rows: Sequence[Row]) -> list[str]:
  """A short name of its own for each row, for its curves.

  `seed_100` where only the seed is the row's own, `seed_100-kl_beta_0.3` where one or
  two flags are, and for all `row_7`, the index, where some have more.
  """
  names = []
  for row in rows:
    own = [f'{flag}_{value}' for flag, value in sorted(row.flags.items())]
    # TensorBoard's names have no other characters.
    names.append(re.sub(r'[^\w.-]', '_', '-'.join([f'seed_{row.seed}', *own])))
  if len(set(names)) < len(rows) or any(len(row.flags) > 2 for row in rows):
    return [f'row_{index}' for index in range(len(rows))]
  return names


def write_finished(run: RunDir, env_steps: int, seconds: float) -> None:
  """Marks the run as complete; training writes nothing to it afterwards.

  Args:
    run: whose other files are written.
    env_steps: of each seed.
    seconds: that it took, over all sessions.
  """
  files.write_json(run.finished, {'env_steps': env_steps, 'seconds': round(seconds, 3)})


def read_finished(run: RunDir) -> dict[str, Any] | None:
  """`env_steps` and `seconds` of a complete run; None while it is not."""
  if not run.finished.is_file():
    return None
  found: dict[str, Any] = json.loads(run.finished.read_text())
  return found


def _make_free(parent: pathlib.Path, name: str) -> pathlib.Path:
  """Makes the first of `name`, `name-2`, ... that is not there."""
  name = re.sub(r'[^\w.-]+', '-', name)
  for number in itertools.count(1):
    path = parent / (name if number == 1 else f'{name}-{number}')
    # Another run that starts at this moment may be faster.
    with contextlib.suppress(FileExistsError):
      path.mkdir()
      return path
  raise AssertionError
