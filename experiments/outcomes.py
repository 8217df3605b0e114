"""What the runs of a table found, and which of it is current.

A cell of a table, one arm of one row, may lie in several jobs, which memory cut, and in
the raw results of earlier starts. Here they become one outcome again, seed by seed.
"""

import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from curves import where_all_ended

from rlfb_jax.bin import launch
from rlfb_jax.methods.config import Config
from rlfb_jax.methods.family import flags_of
from rlfb_jax.reports.comparison import final_scores
from rlfb_jax.sweeps import held
from rlfb_jax.training import metrics, returns, run_dir
from rlfb_jax.training.intervals import mean_interval, paired_difference


class Outcome(NamedTuple):
  """What an arm of a row left, one entry a seed; NaN where no episode ended.

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
    evaluation_steps: environment steps of the evaluations on the way, [E]; none of runs
      that have none, and in records older than this entry.
    evaluation_curve: mean true return of their deterministic episodes, [E][S].
    settings: all flags beside defaults as JSON, see `sweeps.held.settings_of`.
    flags: all of them, defaults too, but for seeds and for where the run was kept; None
      in records older than this entry, which have their `settings` only.
    made: what its runs were made with: `seeds`, `started`, `git` and `versions` of each
      job, and `resumed_by` where other revisions went on with it; empty in records
      older than this entry.
  """

  row: str
  arm: dict[str, str]
  seeds: list[int]
  env_steps: int
  training: list[float]
  evaluation: list[float]
  q_error: list[float] | None
  curve_steps: list[int]
  curve: list[list[float]]
  evaluation_steps: Sequence[int] = ()
  evaluation_curve: Sequence[list[float]] = ()
  settings: str = ''
  flags: dict[str, Any] | None = None
  made: Sequence[dict[str, Any]] = ()


# Fields that may hold what is not finite, null in JSON.
_NUMBERS = ('training', 'evaluation', 'q_error', 'curve')
# Flags that are not kept with an outcome: they change no bit, or its seeds say them.
_NOT_KEPT = (*launch.FREE, 'seed', 'num_seeds')


def read(folder: pathlib.Path, row: str, flags: Sequence[str]) -> list[Outcome]:
  """What the finished jobs below a folder found, each job for itself.

  Args:
    folder: of the row's sweep; there may be none.
    row: its name.
    flags: that tell its arms apart.
  """
  return [
    outcome
    for job in held.read(folder, launch.parse)
    if job.finished
    for outcome in _read_job(run_dir.RunDir(folder / job.name), job, row, flags)
  ]


def current(
  found: Sequence[Outcome], wanted: Mapping[str, Collection[held.Run]]
) -> list[Outcome]:
  """One outcome for each row and arm, of all seeds that were found.

  Args:
    found: of any job and time; of a seed that was run twice the last one counts.
    wanted: row -> its runs, as it is defined now; what is not one of them is dropped.
  """
  cells: dict[str, dict[int, tuple[Outcome, int]]] = {}
  for outcome in found:
    cell = cells.setdefault(json.dumps([outcome.row, outcome.arm]), {})
    for i, seed in enumerate(outcome.seeds):
      if held.Run(outcome.settings, seed) in wanted.get(outcome.row, ()):
        cell[seed] = outcome, i
  return [
    _join([cell[seed] for seed in sorted(cell)]) for cell in cells.values() if cell
  ]


def to_json(outcome: Outcome) -> dict[str, Any]:
  """Plain values, None in place of NaN; what follows from others is left out."""
  record = outcome._asdict()
  record |= {k: metrics.to_json(record[k]) for k in _NUMBERS if record[k] is not None}
  record['made'] = list(outcome.made)
  # Settings leave out what is a default today. What a run was made with must not change
  # with the defaults, so they are kept only where nothing better is known.
  del record['flags' if outcome.flags is None else 'settings']
  return record


def from_json(record: Mapping[str, Any]) -> Outcome:
  """The outcome that `to_json` was given, its settings by today's defaults."""
  found = {**record}
  found |= {k: metrics.to_nan(v) for k, v in record.items() if k in _NUMBERS and v}
  if found.get('flags') is not None:
    found['settings'] = _settings(found['flags'])
  return Outcome(**found)


def _settings(flags: Mapping[str, Any]) -> str:
  """As `Outcome.settings`; '', which no run has, where there is no such flag today."""
  if not set(flags) <= set(flags_of(Config())):
    return ''
  return held.run_of(flags, seed=0).settings


def known(values: Sequence[float]) -> np.ndarray:
  """The finite ones, [<= S]."""
  array = np.asarray(values, float)
  return array[np.isfinite(array)]


def cell(values: Sequence[float] | None) -> str:
  """Mean and 95 % Student interval over seeds; empty where nothing was run."""
  if not values:
    return ''
  finite = known(values)
  if not finite.size:
    return f'none of {len(values)}'
  return str(mean_interval(finite)) + _of_all(finite.size, len(values))


def difference(first: Outcome | None, second: Outcome | None, of: str) -> str:
  """`first - second`, paired by seed, with its 95 % interval; empty without pairs.

  Args:
    first: an outcome.
    second: another of the same row.
    of: field that is compared.
  """
  if first is None or second is None:
    return ''
  ours, theirs = (
    dict(zip(o.seeds, getattr(o, of), strict=True)) for o in (first, second)
  )
  pairs = np.array([(ours[s], theirs[s]) for s in ours if s in theirs]).reshape(-1, 2)
  pairs = pairs[np.isfinite(pairs).all(axis=1)]
  if not len(pairs):
    return ''
  text = str(paired_difference(*pairs.T))
  return text + _of_all(len(pairs), len({*ours, *theirs}))


def _of_all(some: int, number: int) -> str:
  return '' if some == number else f' ({some} of {number} seeds)'


def _join(members: Sequence[tuple[Outcome, int]]) -> Outcome:
  """One outcome of single seeds of others; lines of curves that all of them have."""
  first, _ = members[0]
  columns = [i for _, i in members]
  steps, curve = _shared([(o.curve_steps, o.curve) for o, _ in members], columns)
  evaluation_steps, evaluation_curve = _shared(
    [(o.evaluation_steps, o.evaluation_curve) for o, _ in members], columns
  )
  errors = [None if o.q_error is None else o.q_error[i] for o, i in members]
  return first._replace(
    seeds=[o.seeds[i] for o, i in members],
    training=[o.training[i] for o, i in members],
    evaluation=[o.evaluation[i] for o, i in members],
    q_error=None if None in errors else errors,
    curve_steps=steps,
    curve=curve,
    evaluation_steps=evaluation_steps,
    evaluation_curve=evaluation_curve,
    flags=next((o.flags for o, _ in members if o.flags is not None), None),
    made=_made(members),
  )


def _shared(
  curves: Sequence[tuple[Sequence[int], Sequence[list[float]]]], columns: Sequence[int]
) -> tuple[list[int], list[list[float]]]:
  """Steps that all curves have, [T], and there one column of each curve, [T][S]."""
  lines = [dict(zip(*curve, strict=True)) for curve in curves]
  steps = [s for s in curves[0][0] if all(s in line for line in lines)]
  return steps, [
    [line[s][i] for line, i in zip(lines, columns, strict=True)] for s in steps
  ]


def _made(members: Sequence[tuple[Outcome, int]]) -> list[dict[str, Any]]:
  """An entry for each set of circumstances, with those of the seeds that had it."""
  seeds: dict[str, list[int]] = {}
  for outcome, i in members:
    for entry in outcome.made:
      if outcome.seeds[i] in entry['seeds']:
        rest = {name: value for name, value in entry.items() if name != 'seeds'}
        seeds.setdefault(json.dumps(rest), []).append(outcome.seeds[i])
  return [{'seeds': own, **json.loads(rest)} for rest, own in seeds.items()]


def _circumstances(run: run_dir.RunDir) -> dict[str, Any]:
  """What a run's own manifest says of its making."""
  manifest = json.loads(run.manifest.read_text())
  found = {name: manifest.get(name) for name in ('started', 'git', 'versions')}
  later: list[Any] = []
  for session in manifest.get('sessions', ()):
    if session.get('git') not in (found['git'], *later):
      later.append(session.get('git'))
  return {**found, 'resumed_by': later} if later else found


def _read_job(
  run: run_dir.RunDir, job: held.Held, row: str, flags: Sequence[str]
) -> list[Outcome]:
  shared = flags_of(launch.parse([f'--flagfile={run.flags}']))
  columns = metrics.read(run.root)
  steps, per_episode = columns['env_steps'], columns['episode_return']
  training = np.round(final_scores(steps, per_episode), 2)
  on_the_way = columns.get('evaluation_return', np.full_like(per_episode, np.nan))
  report = returns.read_own(run.report, shared['task'], shared['seed'])
  evaluation = np.round(np.mean(metrics.to_nan(report['returns']), axis=1), 2)
  errors = report.get('q_error', {}).get('standardised')
  q_error = None if errors is None else np.round(metrics.to_nan(errors), 4)
  every = [{**shared, **member.flags} for member in job.rows]
  cells: dict[tuple[str, str], list[int]] = {}
  for i, own in enumerate(job.runs):
    arm = {flag: str(every[i][flag]) for flag in flags}
    cells.setdefault((json.dumps(arm), own.settings), []).append(i)
  circumstances = _circumstances(run)
  found = []
  for (arm, settings), chosen in cells.items():
    curve = where_all_ended(steps, per_episode[:, chosen])
    evaluated = where_all_ended(steps, on_the_way[:, chosen])
    seeds = [job.rows[i].seed for i in chosen]
    kept = {k: v for k, v in every[chosen[0]].items() if k not in _NOT_KEPT}
    found.append(
      Outcome(
        row=row,
        arm=json.loads(arm),
        seeds=seeds,
        env_steps=int(steps[-1]),
        training=training[chosen].tolist(),
        evaluation=evaluation[chosen].tolist(),
        q_error=None if q_error is None else q_error[chosen].tolist(),
        curve_steps=curve.env_steps.astype(int).tolist(),
        curve=np.round(curve.returns, 1).tolist(),
        evaluation_steps=evaluated.env_steps.astype(int).tolist(),
        evaluation_curve=np.round(evaluated.returns, 1).tolist(),
        settings=settings,
        flags=kept,
        made=[{'seeds': seeds, **circumstances}],
      )
    )
  return found
