"""The folder that a run leaves behind.

flags.txt      every option's value; `--flagfile=RUN/flags.txt` repeats the run
manifest.json  versions, device, precision, revision, command line
metrics.jsonl  one JSON object a line
tensorboard/   the same numbers as events
policy/        the exported policy
report/        curves, tables, clips
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

from rlfb_jax.training import manifest as manifest_lib

FLAGS = 'flags.txt'
MANIFEST = 'manifest.json'
METRICS = 'metrics.jsonl'


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
  def tensorboard(self) -> pathlib.Path:
    """Event files."""
    return self._folder('tensorboard')

  @property
  def policy(self) -> pathlib.Path:
    """The exported policy."""
    return self._folder('policy')

  @property
  def report(self) -> pathlib.Path:
    """Curves, tables and clips."""
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
  parent: str = 'runs',
) -> RunDir:
  """Makes a new run's folder with its flags and manifest.

  Args:
    path: the folder, or '' for the first free `parent/name`, `parent/name-2`, ...
    name: what to call the run where `path` is empty, e.g. `walker_walk-rbrl`.
    flag_lines: lines of `flags.txt`.
    command: command line for the manifest; this process's own by default.
    parent: where runs without a path are kept.

  Raises:
    ValueError: if `path` holds a run already or cannot be made.
  """
  root = pathlib.Path(path) if path else _free(pathlib.Path(parent), name)
  try:
    root.mkdir(parents=True, exist_ok=bool(path))
  except OSError as error:
    raise ValueError(
      f'--run_dir={path} cannot be made ({error.strerror}); name another folder.'
    ) from None
  run = RunDir(root)
  if run.manifest.exists() or run.metrics.exists():
    raise ValueError(
      f'--run_dir={path} holds a run already; name another folder or remove this one.'
    )
  run.flags.write_text(''.join(f'{line}\n' for line in flag_lines))
  manifest_lib.write(run.manifest, command)
  return run


def open_existing(path: str) -> RunDir:
  """The folder of a run that was made before.

  Raises:
    ValueError: if there is no run in `path`.
  """
  run = RunDir(pathlib.Path(path))
  if not run.manifest.is_file():
    raise ValueError(f'{path} holds no run: it has no {MANIFEST}.')
  return run


def _free(parent: pathlib.Path, name: str) -> pathlib.Path:
  name = re.sub(r'[^\w.-]+', '-', name)
  number = 1
  while (path := parent / (name if number == 1 else f'{name}-{number}')).exists():
    number += 1
  return path
