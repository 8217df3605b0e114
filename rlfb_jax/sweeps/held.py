"""What the folders of a sweep hold already, and what of it a definition can use.

A definition may grow, by seeds or by values, or be cut otherwise than before. What was
begun stays as it was cut: its folder is taken into the plan, and only the rest is cut
anew.
"""

import json
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from rlfb_jax.methods.config import HOUSEKEEPING, Config
from rlfb_jax.methods.device_options import HOSTS
from rlfb_jax.methods.family import flags_of
from rlfb_jax.training import run_dir
from rlfb_jax.training.run_dir import Row

# Where a run is kept and computed, and which of several it is.
_LEFT_OUT = (*HOUSEKEEPING, *HOSTS, 'mesh', 'seed', 'num_seeds')


class Run(NamedTuple):
  """What is trained, however it is written and wherever it is kept.

  Attributes:
    settings: `settings_of` as JSON.
    seed: its randomness.
  """

  settings: str
  seed: int


class Held(NamedTuple):
  """A folder that a job has begun to work in.

  Attributes:
    name: of the folder.
    rows: as its `rows.json` has them.
    runs: what each row is.
    finished: whether it is complete.
  """

  name: str
  rows: tuple[Row, ...]
  runs: tuple[Run, ...]
  finished: bool


def settings_of(flags: Mapping[str, Any]) -> dict[str, Any]:
  """The flags that make a run what it is, sorted.

  Those at their defaults are left out, so that a new option does not make new runs of
  old ones.

  Args:
    flags: all, see `methods.family.flags_of`.
  """
  defaults = flags_of(Config())
  return {
    flag: value
    for flag, value in sorted(flags.items())
    if flag not in _LEFT_OUT and value != defaults[flag]
  }


def run_of(flags: Mapping[str, Any], seed: int) -> Run:
  """The run that these flags and this seed mean."""
  return Run(json.dumps(settings_of(flags)), seed)


def read(out: pathlib.Path, parse: Callable[[Sequence[str]], Config]) -> list[Held]:
  """What lies in a sweep's folder; what cannot be read holds nothing.

  Args:
    out: folder of the sweep; there may be none.
    parse: `arguments -> Config`.
  """
  found = []
  for path in sorted(out.glob('*/job.json')):
    run = run_dir.RunDir(path.parent)
    try:
      if run.manifest.is_file():
        found.append(_read(run, parse))
    except (ValueError, KeyError, TypeError, OSError):
      continue  # Of another release, perhaps.
  return found


def choose(
  held: Sequence[Held], wanted: Collection[Run], fits: Callable[[Held], bool]
) -> list[Held]:
  """The folders that a plan goes on with.

  A complete folder is taken if any run in it is wanted and not held by a folder before
  it. An incomplete one is taken only if every run in it is still wanted and not held by
  a folder before it. This makes the plan stable: planning again during a sweep
  reproduces the plan made at its start, so shards need not plan at the same moment.

  Args:
    held: in any order.
    wanted: runs of the definition.
    fits: whether an incomplete one is small enough to be run.
  """
  taken: set[Run] = set()
  chosen = []

  def order(folder: Held) -> tuple[bool, int, str]:
    return not folder.finished, -sum(r in wanted for r in folder.runs), folder.name

  for folder in sorted(held, key=order):
    fresh = [run for run in folder.runs if run in wanted and run not in taken]
    whole = len(fresh) == len(folder.runs) and fits(folder)
    if fresh and (folder.finished or whole):
      chosen.append(folder)
      taken.update(fresh)
  return chosen


def _read(run: run_dir.RunDir, parse: Callable[[Sequence[str]], Config]) -> Held:
  shared = flags_of(parse([f'--flagfile={run.flags}']))
  rows = run_dir.read_rows(run)
  return Held(
    name=run.root.name,
    rows=tuple(rows),
    runs=tuple(run_of({**shared, **row.flags}, row.seed) for row in rows),
    finished=run_dir.read_finished(run) is not None,
  )
