"""What runs have left behind, read from their folders: numbers, flags, provenance.

A record holds the seeds that share a task and all flags. A run folder whose rows
differ in flags (see `training/run_dir.py`) gives one record for each kind of row.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rlfb_jax.methods.config import Config, RunOptions
from rlfb_jax.training import metrics, returns, run_dir

# Metrics that are a list per row, and not by rating class as all others of that kind.
_BY_ANSWER = ('answer_counts',)
# What a sweep says of a job, in the run's folder; see `sweeps/folder.py`.
_JOB = 'job.json'


@dataclasses.dataclass(frozen=True)
class Record:
  """Runs of one task under the same flags.

  Attributes:
    source: folder or file, as the user would name it.
    name: what its maker called it, such as the arm of a sweep, or ''.
    task: environment.
    flags: flag -> value, as text.
    seeds: number of each seed, [S].
    columns: metric -> [T, S, ...]; `env_steps` is [T].
    evaluation: true returns of deterministic episodes, [S, episodes], or None.
    success: whether they had it, likewise; None where the task does not tell.
    manifest: what it was made with.
    seconds: wall time of the whole program, or None.
    program_rows: runs that the program computed side by side, P; those of other
      records, which may be of other arms, among them.
    problems: sentences about what is wrong with it.
  """

  source: str
  name: str
  task: str
  flags: Mapping[str, str]
  seeds: tuple[int, ...]
  columns: Mapping[str, np.ndarray]
  evaluation: np.ndarray | None
  success: np.ndarray | None
  manifest: Mapping[str, Any]
  seconds: float | None
  program_rows: int
  problems: tuple[str, ...] = ()


def find(paths: Sequence[str]) -> tuple[list[Record], list[str]]:
  """Reads runs, folders of runs at any depth, and files of imported curves.

  Args:
    paths: a run's folder, a folder that holds runs or curves, or a `.json` file of
      `experiments/learning_curves.py`.

  Returns:
    The records, and a sentence for each run that could not be read.

  Raises:
    ValueError: if a path is not there, or nothing is found at all.
  """
  records: list[Record] = []
  problems: list[str] = []
  for path in paths:
    if not pathlib.Path(path).exists():
      raise ValueError(f'{path} is not there; name folders of runs, such as runs/NAME.')
    problems += _not_started(pathlib.Path(path))
    for source in _sources(pathlib.Path(path)):
      try:
        read = read_curves if source.is_file() else read_run
        records += read(source)
      except (ValueError, KeyError, OSError, TypeError, IndexError) as error:
        problems.append(f'{source} cannot be read and is left out: {error}')
  if not records:
    said = ' '.join(problems)
    raise ValueError(
      f'No runs were found in {", ".join(paths)}; a run is a folder with '
      f'{run_dir.MANIFEST} and {run_dir.METRICS}. {said}'.rstrip()
    )
  return records, problems


def _sources(path: pathlib.Path) -> Iterator[pathlib.Path]:
  if path.is_file():
    yield path
    return
  runs = sorted(found.parent for found in path.rglob(run_dir.MANIFEST))
  if runs:
    yield from runs
  else:
    yield from sorted(found for found in path.glob('*.json') if _is_curves(found))


def _not_started(path: pathlib.Path) -> list[str]:
  """A sentence for each job of a sweep that no machine has taken up."""
  jobs = sorted(found.parent for found in path.rglob(_JOB))
  return [
    f'{job.name} of {job.parent.name} has not been started.'
    for job in jobs
    if not (job / run_dir.MANIFEST).is_file()
  ]


def _is_curves(path: pathlib.Path) -> bool:
  return '"episode_return"' in path.read_text(encoding='utf-8')


def read_run(root: pathlib.Path) -> list[Record]:
  """The records of a run's folder, one for each set of flags among its rows."""
  run = run_dir.RunDir(root)
  flags = parse_flags(run.flags.read_text(encoding='utf-8').splitlines())
  manifest = json.loads(run.manifest.read_text(encoding='utf-8'))
  columns = metrics.read(root) if run.metrics.is_file() else {}
  if 'env_steps' not in columns:
    raise ValueError('it stopped before it had written any metrics.')
  num_rows = next((v.shape[1] for v in columns.values() if v.ndim > 1), 1)
  if run.rows.is_file():
    rows = run_dir.read_rows(run)
  else:
    first = int(flags.get('seed', 0))
    rows = [run_dir.Row(first + i, {}) for i in range(num_rows)]
  finished = run_dir.read_finished(run)
  total, reached = _length(flags), int(columns['env_steps'][-1])
  problems = []
  if finished is None and (total is None or reached < total):
    end = '' if total is None else f' of {total:,}'
    problems.append(
      f'{root.name} is not complete: it is at {reached:,}{end} steps '
      f'(seeds {numbers([row.seed for row in rows])}).'
    )
  evaluation = success = None
  try:
    evaluation, success = _evaluation(run, flags, len(rows))
  except ValueError as error:
    problems.append(f'The evaluation of {root.name} is left out: {error}')
  arms = _arms(root, len(rows))
  records = []
  for own in dict.fromkeys(tuple(sorted(_texts(row.flags).items())) for row in rows):
    chosen = [i for i, r in enumerate(rows) if _texts(r.flags) == dict(own)]
    records.append(
      Record(
        source=root.name,
        name=arms[chosen[0]],
        task=(flags | dict(own)).get('task', ''),
        flags=flags | dict(own),
        seeds=tuple(rows[i].seed for i in chosen),
        columns={
          name: _of_rows(name, values, chosen, flags | dict(own))
          for name, values in columns.items()
        },
        evaluation=None if evaluation is None else evaluation[chosen],
        success=None if success is None else success[chosen],
        manifest=manifest,
        seconds=None if finished is None else finished.get('seconds'),
        program_rows=len(rows),
        problems=tuple(problems),
      )
    )
  return records


def _arms(root: pathlib.Path, num_rows: int) -> list[str]:
  """Name of each row's arm in the sweep that it is of; '' where it has none."""
  nameless = [''] * num_rows
  try:
    rows = json.loads((root / _JOB).read_text(encoding='utf-8'))['rows']
    names = [str(row.get('arm', '')) for row in rows]
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return nameless
  return names if len(names) == num_rows else nameless


def _length(flags: Mapping[str, str]) -> int | None:
  """Steps of the whole run; None where its flags are of methods that are no more."""
  steps = int(float(flags.get('total_env_steps', 0)))
  if steps:
    return steps
  names = ('method', 'agent', 'ask', 'add')
  recipe: dict[str, Any] = {name: flags[name] for name in names if name in flags}
  try:
    return Config(run=RunOptions(**recipe)).total_env_steps
  except (KeyError, ValueError):
    return None


def _of_rows(
  name: str, values: np.ndarray, chosen: Sequence[int], flags: Mapping[str, str]
) -> np.ndarray:
  """Rows of a column; what is told by rating class, of the classes that they have.

  Where rows differ in their number of classes, a line has room for the most.
  """
  if values.ndim < 3 or name in _BY_ANSWER:
    return values[:, chosen] if values.ndim > 1 else values
  num_classes = flags.get('rating_num_classes')
  return values[:, chosen, : int(num_classes) if num_classes else None]


def _evaluation(
  run: run_dir.RunDir, flags: Mapping[str, str], num_rows: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
  """Returns of deterministic episodes at the end and their success, [S, episodes].

  Either is None where it is not told.

  Raises:
    ValueError: if what lies there is not the run's own.
  """
  folder = run.root / 'report'
  if not (folder / returns.FILE).is_file():
    return None, None
  record = returns.read_own(folder, flags.get('task', ''), int(flags.get('seed', 0)))
  found = np.asarray(record['returns'], float)
  if found.ndim != 2 or len(found) != num_rows:
    return None, None
  success = record.get('success')
  return found, None if success is None else np.asarray(success, float)


def read_curves(path: pathlib.Path) -> list[Record]:
  """The record of a file that `experiments/learning_curves.py` wrote."""
  found = json.loads(path.read_text(encoding='utf-8'))
  flags = parse_flags(found.get('flags', ()))
  env_steps = np.asarray(found['env_steps'])
  columns = {
    name: np.asarray(metrics.to_nan(values), float)
    for name, values in found.items()
    if isinstance(values, list)
    and len(values) == len(env_steps)
    # These are as long only by chance.
    and name not in ('flags', 'evaluation', 'success')
  }
  columns['env_steps'] = env_steps
  num_seeds = columns['episode_return'].shape[1]
  seconds = found.get('seconds')
  if seconds and 'wall_seconds' not in columns:
    # Only the total is known: taken as spread evenly.
    columns['wall_seconds'] = seconds * env_steps / env_steps[-1]
  first = int(flags.get('seed', 0))
  evaluation, success = found.get('evaluation'), found.get('success')
  # What the file is named for beside task and arm tells a variant.
  name = path.stem.removeprefix(f'{found["task"]}-') or found['arm']
  return [
    Record(
      source=path.name,
      name=name,
      task=found['task'],
      flags=flags,
      seeds=tuple(range(first, first + num_seeds)),
      columns=columns,
      evaluation=None if evaluation is None else np.asarray(evaluation, float),
      success=None if success is None else np.asarray(success, float),
      manifest={**found.get('manifest', {}), 'command': [found.get('command', '')]},
      seconds=seconds,
      program_rows=num_seeds,  # An arm is a program.
    )
  ]


def parse_flags(lines: Sequence[str]) -> dict[str, str]:
  """Flag -> value of the lines of a flag file; comments are left out."""
  pairs = (line.lstrip('-').partition('=') for line in lines if line.startswith('--'))
  return {name: value for name, _, value in pairs}


def numbers(values: Sequence[int]) -> str:
  """Numbers in a row as people write them: `0-4, 7`."""
  parts: list[list[int]] = []
  for value in sorted(set(values)):
    if parts and value == parts[-1][-1] + 1:
      parts[-1].append(value)
    else:
      parts.append([value])
  return ', '.join(f'{p[0]}-{p[-1]}' if len(p) > 1 else str(p[0]) for p in parts)


def _texts(flags: Mapping[str, Any]) -> dict[str, str]:
  return {
    name: str(v).lower() if isinstance(v, bool) else str(v) for name, v in flags.items()
  }
