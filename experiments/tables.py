"""What the scripts of the papers' tables share: run what is missing, lay it out.

A table is a few sweeps, one for each of its rows. `rlfb-sweep` does the work, so that a
table can be interrupted, taken up and shared by many machines (`--shard=I/N`), and a
second start does what is missing. Tables are made from the runs' own files.
"""

import argparse
import json
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import choices
import kept
import numpy as np
import outcomes as outcomes_lib
from curves import Curve, plot
from outcomes import Outcome

from rlfb_jax.bin import flags as command_flags
from rlfb_jax.bin import launch, sweep
from rlfb_jax.sweeps.held import Run
from rlfb_jax.sweeps.jobs import runs_of
from rlfb_jax.sweeps.runner import STOPPED
from rlfb_jax.training import files, manifest

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / 'results' / 'tables'


class Size(NamedTuple):
  """How large the runs of a table are.

  Attributes:
    flags: of every run, after the row's own.
    seeds: of every cell.
    steps: environment steps, by task; empty for those of the row's flag file.
  """

  flags: tuple[str, ...]
  seeds: int
  steps: Mapping[str, int]


class Row(NamedTuple):
  """One sweep.

  Attributes:
    name: of the row and of its folder.
    task: that it runs.
    flagfile: below `experiments/presets`.
    arguments: of `rlfb-sweep`: grid, arms, further flags.
    quick: arguments that only shortened runs take.
    paper: arguments that only runs of the published length take.
  """

  name: str
  task: str
  flagfile: str
  arguments: tuple[str, ...]
  quick: tuple[str, ...] = ()
  paper: tuple[str, ...] = ()


def arguments(
  description: str, rows: Sequence[Row], sizes: Mapping[str, Size], name: str
) -> argparse.Namespace:
  """The command line that all tables have."""
  parser = argparse.ArgumentParser(description=description)
  parser.add_argument('--scale', choices=sizes, default='quick')
  parser.add_argument('--rows', default='', help='comma-separated; default: all')
  parser.add_argument('--out', default='', help=f'default: runs/{name}-SCALE')
  parser.add_argument('--shard', default='0/1', help='as of rlfb-sweep')
  parser.add_argument('--max_rows', type=int, default=0, help='as of rlfb-sweep')
  parser.add_argument('--dry_run', action='store_true', help='show the jobs')
  parser.add_argument('--draw_only', action='store_true', help='run nothing')
  options = parser.parse_args()
  names = [row.name for row in rows]
  options.rows = choices.split(parser, 'rows', options.rows or ','.join(names), names)
  options.out = pathlib.Path(options.out or f'runs/{name}-{options.scale}')
  return options


def make(
  name: str,
  rows: Sequence[Row],
  sizes: Mapping[str, Size],
  options: argparse.Namespace,
  flags: Sequence[str],
) -> tuple[list[Outcome], int]:
  """Runs what is missing, saves what was found, and returns all that is current.

  Args:
    name: of the table.
    rows: all of its rows; `options.rows` chooses.
    sizes: by scale.
    options: of `arguments`.
    flags: that tell the arms of a row apart.

  Returns:
    An outcome for each row and arm, those of earlier starts included ([] after a dry
    run, or where no run has ended yet), and the exit code: 1 if a job failed.

  Raises:
    SystemExit: with the sweep's code, if it was asked to stop; with a sentence, if the
      command line is wrong or nothing is there to be drawn.
  """
  size = sizes[options.scale]
  with command_flags.usage_errors(name):
    wanted = {
      row.name: runs_of(sweep.parse(command(row, size, options)).sweep, launch.parse)
      for row in rows
    }
  found, failed = [], False
  for row in (row for row in rows if row.name in options.rows):
    code = 0 if options.draw_only else sweep.main(command(row, size, options))
    if code == STOPPED:
      raise SystemExit(code)
    failed |= code != 0
    if not options.dry_run:
      with command_flags.usage_errors(name):  # An evaluation that is not the run's own.
        found += outcomes_lib.read(options.out / row.name, row.name, flags)
  if options.dry_run:
    return [], int(failed)
  outcomes = _merge(name, options, found, wanted)
  if options.draw_only and not outcomes:
    raise SystemExit('no finished run to show; start without --draw_only first.')
  return outcomes, int(failed)


def _merge(
  name: str,
  options: argparse.Namespace,
  found: Sequence[Outcome],
  wanted: Mapping[str, Collection[Run]],
) -> list[Outcome]:
  """All that is current, saved if anything was found."""
  with kept.alone(_raw(name, options), 'start again with --draw_only'):
    outcomes = outcomes_lib.current([*load(name, options), *found], wanted)
    if found:
      save(name, options, outcomes)
  return outcomes


def command(row: Row, size: Size, options: argparse.Namespace) -> list[str]:
  """What `rlfb-sweep` is told to do what is missing of a row."""
  steps = size.steps.get(row.task)
  return [
    f'--out={options.out / row.name}',
    f'--shard={options.shard}',
    f'--seeds={size.seeds}',
    f'--max_rows={options.max_rows}',
    *(['--dry_run'] if options.dry_run else []),
    *row.arguments,
    f'--flagfile={HERE / "presets" / row.flagfile}',
    *size.flags,
    *(row.quick if steps else row.paper),
    *([f'--total_env_steps={steps}'] if steps else []),
  ]


def save(name: str, options: argparse.Namespace, outcomes: Sequence[Outcome]) -> None:
  """Writes the raw results.

  The manifest is that of the command that put the table together. What the runs were
  made with, each outcome says for itself.
  """
  RESULTS.mkdir(parents=True, exist_ok=True)
  made = manifest.make()
  del made['device']  # Of this process; what the runs had, their own manifests say.
  record = {
    'manifest': made,
    'scale': options.scale,
    'outcomes': [outcomes_lib.to_json(outcome) for outcome in outcomes],
  }
  text = json.dumps(record, allow_nan=False) + '\n'
  files.replace(_raw(name, options), text.encode())


def load(name: str, options: argparse.Namespace) -> list[Outcome]:
  """The raw results; [] where there are none yet."""
  path = _raw(name, options)
  if not path.exists():
    return []
  return [outcomes_lib.from_json(o) for o in json.loads(path.read_text())['outcomes']]


def write(name: str, options: argparse.Namespace, lines: Sequence[str]) -> None:
  """The table as Markdown, beside the raw results, and on the screen."""
  text = '\n'.join(lines) + '\n'
  files.replace(RESULTS / f'{name}-{options.scale}.md', text.encode())
  print(text)


def find(
  outcomes: Sequence[Outcome], row: str, matches: Callable[[dict[str, str]], bool]
) -> Outcome | None:
  """The outcome of a row whose flags match."""
  for outcome in outcomes:
    if outcome.row == row and matches(outcome.arm):
      return outcome
  return None


def draw(
  name: str,
  options: argparse.Namespace,
  panels: Mapping[str, Mapping[str, Outcome | None]],
  notes: Sequence[str] = (),
) -> None:
  """Learning curves beside the table, as a picture.

  A panel whose arms all have evaluations on the way shows those, as the papers do;
  others show training episodes.

  Args:
    name: of the table.
    options: its command line.
    panels: task -> label -> outcome.
    notes: lines below.
  """
  drawn, evaluated = {}, []
  for task, outcomes in panels.items():
    there = {
      label: o
      for label, o in outcomes.items()
      if o is not None and (o.curve or o.evaluation_curve)
    }
    if not there:
      continue
    if all(o.evaluation_curve for o in there.values()):
      evaluated.append(task)
      found = {k: (o.evaluation_steps, o.evaluation_curve) for k, o in there.items()}
    else:
      found = {k: (o.curve_steps, o.curve) for k, o in there.items() if o.curve}
    drawn[task] = {k: Curve(*map(np.asarray, curve)) for k, curve in found.items()}
  if drawn:
    path = RESULTS / f'{name}-{options.scale}.png'
    plot(path, drawn, evaluated=evaluated, notes=notes)


def _raw(name: str, options: argparse.Namespace) -> pathlib.Path:
  return RESULTS / f'{name}-{options.scale}.json'
