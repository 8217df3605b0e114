"""Records side by side: tasks, arms, their seeds, and one final score for each seed.

An arm is what is compared: a method, named together with the flags in which it
differs from others of the same method. Nothing is dropped in silence: what is missing
or broken is said in `problems`.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from rlfb_jax.reports.arms import family, is_circumstance, name_arms
from rlfb_jax.reports.records import Record, numbers
from rlfb_jax.training import metrics

_CLOCK = 'wall_seconds'  # Of the whole program.
# Share of a run, from its end, that its final score is averaged over.
FINAL_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Cell:
  """One arm on one task, all its seeds.

  Attributes:
    seeds: those with a final score, [S].
    columns: metric -> [T, S, ...]; `env_steps` is [T].
    final: mean true return of training episodes over the last tenth, [S]; see
      `final_scores`.
    evaluation: mean true return of deterministic episodes at the end, [S], NaN for a
      seed whose run has none; None where no run has one.
    success: share of them that had it, likewise; None where the task does not tell.
    seconds_per_run: wall time until each line, [T], see `_seconds_per_run`; or None.
    records: where it comes from.
  """

  seeds: tuple[int, ...]
  columns: Mapping[str, np.ndarray]
  final: np.ndarray
  evaluation: np.ndarray | None
  success: np.ndarray | None
  seconds_per_run: np.ndarray | None
  records: tuple[Record, ...]

  @property
  def env_steps(self) -> np.ndarray:
    """Environment steps of each line, [T]."""
    return self.columns['env_steps']


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Everything that is compared.

  Attributes:
    tasks: panels, in order.
    arms: names, in order.
    cells: (task, arm) -> cell; one that nobody ran is not there.
    references: task -> the arm that scores are shares of: of those paid the true
      reward (of all, where there are none) the one run on most tasks, then the best.
    scale: task -> mean final score of that arm; a task where it is not above 0 has
      none, because shares of it would mean nothing.
    families: arm -> what it learns from: one of `QUESTIONS`, '' for the true reward, or
      the arm itself where its method is not known.
    problems: sentences.
  """

  tasks: tuple[str, ...]
  arms: tuple[str, ...]
  cells: Mapping[tuple[str, str], Cell]
  references: Mapping[str, str]
  scale: Mapping[str, float]
  families: Mapping[str, str]
  problems: tuple[str, ...]

  @property
  def true_reward(self) -> frozenset[str]:
    """Arms that are paid the true reward."""
    return frozenset(arm for arm, family in self.families.items() if not family)

  def on(self, task: str) -> dict[str, Cell]:
    """Arm -> cell on one task."""
    return {a: self.cells[task, a] for a in self.arms if (task, a) in self.cells}

  def common(self, *arms: str) -> list[str]:
    """Tasks that all these arms were run on."""
    return [t for t in self.tasks if all((t, a) in self.cells for a in arms)]

  def shares(self, arm: str, tasks: Sequence[str]) -> list[np.ndarray]:
    """Final scores as shares of the task's reference, one array [S] a task.

    Args:
      arm: that was run on all of them.
      tasks: each with a scale.
    """
    return [self.cells[task, arm].final / self.scale[task] for task in tasks]


def compare(records: Sequence[Record], problems: Sequence[str] = ()) -> Comparison:
  """Puts records side by side.

  Args:
    records: at least one.
    problems: sentences from reading them, carried along.

  Raises:
    ValueError: if no record has a single finished episode.
  """
  said = [*problems, *(p for record in records for p in record.problems)]
  said = list(dict.fromkeys(said))
  named = collections.defaultdict(list)
  for record, name in zip(records, name_arms(records), strict=True):
    named[record.task, name].append(record)
  cells = {}
  for (task, arm), group in named.items():
    cell, wrong = _cell(f'{arm} on {task}', group)
    said += wrong
    if cell is not None:
      cells[task, arm] = cell
  if not cells:
    raise ValueError(
      'No run has finished a single episode, so there is nothing to report yet. '
      + ' '.join(said)
    )
  tasks = tuple(sorted({task for task, _ in cells}))
  families = {arm: family(arm, cell.records[0]) for (_, arm), cell in cells.items()}
  arms = tuple(sorted(families, key=lambda a: (families[a] != '', a)))
  references, scale = {}, {}
  for task in tasks:
    means = {a: cells[task, a].final.mean() for a in arms if (task, a) in cells}
    paid = {a: m for a, m in means.items() if not families[a]} or means
    # One that was run on every task serves better than the best on a single one.
    width = {a: sum((t, a) in cells for t in tasks) for a in paid}
    references[task] = max(paid, key=lambda a: (width[a], paid[a]))
    best = float(paid[references[task]])
    if best > 0:
      scale[task] = best
    else:
      said.append(
        f'{task}: the reference, {references[task]}, has a mean final return of'
        f' {best:.4g}; shares of what is not above 0 mean nothing, and the task is left'
        ' out of what is pooled over tasks.'
      )
    said += _missing(task, {a: cells[task, a] for a in means}, arms)
  return Comparison(
    tasks, arms, cells, references, scale, families, tuple(dict.fromkeys(said))
  )


def differing_flags(comparison: Comparison) -> dict[str, dict[str, str]]:
  """Flag -> arm -> value, of flags that set arms apart on some task."""
  found: dict[str, dict[str, str]] = {}
  for task in comparison.tasks:
    on = comparison.on(task)
    flags = {f for cell in on.values() for f in cell.records[0].flags}
    for flag in sorted(f for f in flags if not is_circumstance(f) or f == 'method'):
      holders = {a: cell.records[0].flags for a, cell in on.items()}
      values = {a: own[flag] for a, own in holders.items() if flag in own}
      if len(set(values.values())) > 1:
        found.setdefault(flag, {}).update(values)
  return found


def _cell(name: str, records: Sequence[Record]) -> tuple[Cell | None, list[str]]:
  """Joins records of the same arm; a seed that was run twice counts once."""
  said: list[str] = []
  kept: list[tuple[Record, list[int]]] = []  # With those of its seeds that count.
  seen: set[int] = set()
  for record in sorted(records, key=lambda r: -len(r.columns['env_steps'])):
    fresh = [i for i, seed in enumerate(record.seeds) if seed not in seen]
    again = [seed for seed in record.seeds if seed in seen]
    if again:
      rest = '' if fresh else '; nothing else is in it, and it is left out'
      said.append(
        f'{name}: seeds {numbers(again)} of {record.source} were run elsewhere '
        f'too, and the longer run counts{rest}.'
      )
    if fresh:
      seen |= set(record.seeds)
      kept.append((record, fresh))
  lengths = {len(record.columns['env_steps']) for record, _ in kept}
  if len(lengths) > 1:
    said.append(
      f'{name}: its runs have different lengths; they are compared up to the shortest.'
    )
  lines, columns = min(lengths), {}
  for column in kept[0][0].columns:
    if column == _CLOCK:
      continue  # Each program has its own.
    if not all(column in record.columns for record, _ in kept):
      continue
    values = [record.columns[column] for record, _ in kept]
    if values[0].ndim > 1:
      parts = [v[:lines, f] for v, (_, f) in zip(values, kept, strict=True)]
      columns[column] = np.concatenate(parts, axis=1)
    else:
      columns[column] = values[0][:lines]
  seeds = [record.seeds[i] for record, fresh in kept for i in fresh]
  final = final_scores(columns['env_steps'], columns['episode_return'])
  known = np.isfinite(final)
  if not known.all():
    broken = [seed for seed, fine in zip(seeds, known, strict=True) if not fine]
    said.append(
      f'{name}: seeds {numbers(broken)} have no finite return at the end and are left '
      'out of every figure.'
    )
  if not known.any():
    return None, said
  counted = {seed for seed, fine in zip(seeds, known, strict=True) if fine}
  for record, fresh in kept:
    # Of each by itself: one that is joined may lack the column.
    told = {column: v[:lines] for column, v in record.columns.items()}
    for i, text in metrics.broken(told):
      if i in fresh:
        seed = record.seeds[i]
        care = '; it counts, but read it with care' if seed in counted else ''
        said.append(f'{name}: seed {seed} {text}{care}.')
  return Cell(
    seeds=tuple(seed for seed, fine in zip(seeds, known, strict=True) if fine),
    columns={n: v[:, known] if v.ndim > 1 else v for n, v in columns.items()},
    final=final[known],
    evaluation=_mean_episode([(r.evaluation, f) for r, f in kept], known),
    success=_mean_episode([(r.success, f) for r, f in kept], known),
    seconds_per_run=_seconds_per_run(kept, lines),
    records=tuple(record for record, _ in kept),
  ), said


def _mean_episode(
  parts: Sequence[tuple[np.ndarray | None, Sequence[int]]], known: np.ndarray
) -> np.ndarray | None:
  """Each seed's mean over its episodes, [S], NaN where its record has none.

  None where no seed has one.
  """
  means = [
    np.full(len(chosen), np.nan) if each is None else each[chosen].mean(axis=1)
    for each, chosen in parts
  ]
  found: np.ndarray = np.concatenate(means)[known]
  return found if np.isfinite(found).any() else None


def _seconds_per_run(
  kept: Sequence[tuple[Record, Sequence[int]]], lines: int
) -> np.ndarray | None:
  """Wall time that a run took until each line, mean over the runs that count, [T].

  The rows of a program are computed side by side, those of other arms among them: each
  has taken its share of the program's time. None where a program's time is not known.
  """
  if not all(_CLOCK in record.columns for record, _ in kept):
    return None
  shares = [r.columns[_CLOCK][:lines] / r.program_rows for r, _ in kept]
  mean: np.ndarray = np.average(shares, axis=0, weights=[len(f) for _, f in kept])
  return mean


def final_scores(
  env_steps: np.ndarray, returns: np.ndarray, share: float = FINAL_SHARE
) -> np.ndarray:
  """Each seed's mean over the last `share` of its steps, [T], [T, S] -> [S].

  Lines count alike; those on which no episode ended are skipped. Where that leaves
  none, the share is doubled; where it leaves none again, a run of fewer than five lines
  counts as a whole. NaN otherwise.
  """
  result = np.full(returns.shape[1], np.nan)
  for seed in range(returns.shape[1]):
    ended = np.isfinite(returns[:, seed])
    for reach in (share, 2 * share, 1.0 if len(env_steps) < 5 else 0.0):
      chosen = ended & (env_steps > (1 - reach) * env_steps[-1])
      if chosen.any():
        result[seed] = returns[chosen, seed].mean()
        break
  return result


def _missing(task: str, on: Mapping[str, Cell], arms: Sequence[str]) -> list[str]:
  said = []
  absent = [arm for arm in arms if arm not in on]
  if absent:
    verb = 'was' if len(absent) == 1 else 'were'
    said.append(f'{task}: {", ".join(absent)} {verb} not run.')
  ends = {arm: int(cell.env_steps[-1]) for arm, cell in on.items()}
  if len(set(ends.values())) > 1:
    lengths = ', '.join(f'{arm} {steps:,}' for arm, steps in ends.items())
    said.append(
      f'{task}: final scores are those of different numbers of steps ({lengths}).'
    )
  everyone = {seed for cell in on.values() for seed in cell.seeds}
  for arm, cell in on.items():
    missing = everyone - set(cell.seeds)
    if missing:
      said.append(
        f'{arm} on {task}: seeds {numbers(sorted(missing))}, which other arms have, '
        'are missing.'
      )
  return said
