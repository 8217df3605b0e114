"""What the scripts of the papers' tables share: run what is missing, lay it out.

A table is a few sweeps, one for each of its rows. `rlfb-sweep` does the work, so that a
table can be interrupted, taken up and shared by many machines (`--shard=I/N`), and a
second start does what is missing. Tables are made from the runs' own files.
"""

import argparse
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from curves import Curve, plot

from rlfb_jax.bin import sweep, train
from rlfb_jax.methods.family import flags_of
from rlfb_jax.training import manifest, metrics, returns, run_dir
from rlfb_jax.training.intervals import mean_interval

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
    quick: flags that only shortened runs take.
  """

  name: str
  task: str
  flagfile: str
  arguments: tuple[str, ...]
  quick: tuple[str, ...] = ()


class Outcome(NamedTuple):
  """What one run left, one entry a seed.

  Attributes:
    row: name.
    arm: its flags that the row's runs differ in, `flag=value`, as on the command line.
    seeds: [S].
    env_steps: of each.
    training: mean true return of the last tenth of training, [S].
    evaluation: mean of the deterministic evaluation, [S].
    q_error: standardised squared error of the critics, [S], or None.
    curve_steps: environment steps of the lines of the curve, [T].
    curve: true return of training episodes, [T][S], where episodes ended.
  """

  row: str
  arm: dict[str, Any]
  seeds: list[int]
  env_steps: int
  training: list[float]
  evaluation: list[float]
  q_error: list[float] | None
  curve_steps: list[int]
  curve: list[list[float]]


def arguments(
  description: str, rows: Sequence[Row], sizes: Mapping[str, Size], name: str
) -> argparse.Namespace:
  """The command line that all tables have."""
  parser = argparse.ArgumentParser(description=description)
  parser.add_argument('--scale', choices=sizes, default='quick')
  parser.add_argument('--rows', default='', help='comma-separated; default: all')
  parser.add_argument('--out', default='', help=f'default: runs/{name}-SCALE')
  parser.add_argument('--shard', default='0/1', help='as of rlfb-sweep')
  parser.add_argument('--dry_run', action='store_true', help='show the jobs')
  parser.add_argument('--draw_only', action='store_true', help='run nothing')
  options = parser.parse_args()
  names = [row.name for row in rows]
  options.rows = options.rows.split(',') if options.rows else names
  for row in options.rows:
    if row not in names:
      parser.error(f'--rows={row} is not one of {", ".join(names)}.')
  options.out = pathlib.Path(options.out or f'runs/{name}-{options.scale}')
  return options


def run(row: Row, size: Size, options: argparse.Namespace) -> int:
  """Does what is missing of a row; the exit code of `rlfb-sweep`."""
  steps = size.steps.get(row.task)
  return sweep.main(
    [
      f'--out={options.out / row.name}',
      f'--shard={options.shard}',
      f'--seeds={size.seeds}',
      *(['--dry_run'] if options.dry_run else []),
      *row.arguments,
      f'--flagfile={HERE / "presets" / row.flagfile}',
      *size.flags,
      *(row.quick if steps else ()),
      *([f'--total_env_steps={steps}'] if steps else []),
    ]
  )


def read(folder: pathlib.Path, row: str, flags: Sequence[str]) -> list[Outcome]:
  """What the finished runs below a folder found.

  Args:
    folder: of the row's sweep.
    row: its name.
    flags: that tell its runs apart.
  """
  outcomes = []
  for path in sorted(folder.glob(f'*/{run_dir.FINISHED}')):
    outcomes += _read_run(run_dir.RunDir(path.parent), row, flags)
  return outcomes


def _read_run(run: run_dir.RunDir, row: str, flags: Sequence[str]) -> list[Outcome]:
  shared = flags_of(train.parse([f'--flagfile={run.flags}']))
  rows = run_dir.read_rows(run)
  columns = metrics.read(run.root)
  steps, per_episode = columns['env_steps'], columns['episode_return']
  ended = np.isfinite(per_episode).all(axis=1)
  last = steps > 0.9 * steps[-1]
  with np.errstate(invalid='ignore'):
    training = np.nanmean(per_episode[last], axis=0)
  report = json.loads((run.report / returns.FILE).read_text())
  evaluation = np.mean(report['returns'], axis=1)
  q_error = report.get('q_error', {}).get('standardised')
  arms: dict[str, list[int]] = {}
  for index, member in enumerate(rows):
    arm = {flag: str({**shared, **member.flags}[flag]) for flag in flags}
    arms.setdefault(json.dumps(arm), []).append(index)
  return [
    Outcome(
      row=row,
      arm=json.loads(arm),
      seeds=[rows[i].seed for i in chosen],
      env_steps=int(steps[-1]),
      training=np.round(training[chosen], 2).tolist(),
      evaluation=np.round(evaluation[chosen], 2).tolist(),
      q_error=None if q_error is None else [round(q_error[i], 4) for i in chosen],
      curve_steps=steps[ended].astype(int).tolist(),
      curve=np.round(per_episode[ended][:, chosen], 1).tolist(),
    )
    for arm, chosen in arms.items()
  ]


def save(name: str, options: argparse.Namespace, outcomes: Sequence[Outcome]) -> None:
  """Adds what was found to the raw results; what was there of other runs stays."""
  RESULTS.mkdir(parents=True, exist_ok=True)
  path = RESULTS / f'{name}-{options.scale}.json'
  before = json.loads(path.read_text())['outcomes'] if path.exists() else []
  new = {_identity(o._asdict()): o._asdict() for o in outcomes}
  old = {_identity(o): o for o in before}
  record = {
    'manifest': manifest.make(),
    'scale': options.scale,
    'outcomes': list({**old, **new}.values()),
  }
  path.write_text(json.dumps(record) + '\n')


def load(name: str, options: argparse.Namespace) -> list[Outcome]:
  """The raw results."""
  path = RESULTS / f'{name}-{options.scale}.json'
  if not path.exists():
    raise SystemExit('no finished run to show; start without --draw_only first.')
  return [Outcome(**o) for o in json.loads(path.read_text())['outcomes']]


def write(name: str, options: argparse.Namespace, lines: Sequence[str]) -> None:
  """The table as Markdown, beside the raw results, and on the screen."""
  text = '\n'.join(lines) + '\n'
  (RESULTS / f'{name}-{options.scale}.md').write_text(text)
  print(text)


def find(
  outcomes: Sequence[Outcome], row: str, matches: Callable[[dict[str, str]], bool]
) -> Outcome | None:
  """The first outcome of a row whose flags match."""
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

  Args:
    name: of the table.
    options: its command line.
    panels: task -> label -> outcome.
    notes: lines below.
  """
  drawn = {
    task: {
      label: Curve(np.asarray(o.curve_steps), np.asarray(o.curve))
      for label, o in outcomes.items()
      if o is not None and o.curve
    }
    for task, outcomes in panels.items()
  }
  drawn = {task: curves for task, curves in drawn.items() if curves}
  if drawn:
    plot(RESULTS / f'{name}-{options.scale}.png', drawn, notes=notes)


def cell(values: Sequence[float] | None) -> str:
  """Mean and 95 % Student interval over seeds; empty where nothing was run."""
  if not values:
    return ''
  interval = mean_interval(np.asarray(values))
  if abs(interval.mean) < 10:
    return f'{interval.mean:.2f} ± {interval.half_width:.2f}'
  return str(interval)


def _identity(outcome: Mapping[str, Any]) -> str:
  return json.dumps([outcome['row'], outcome['arm'], outcome['seeds']])
