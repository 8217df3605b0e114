"""What all figures have in common: which arms and tasks, and numbers as text."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rlfb_jax.reports import charts, statistics
from rlfb_jax.reports.comparison import Cell, Comparison
from rlfb_jax.training.intervals import decimals, mean_interval, paired_difference

# More pairs of arms than this have no room in a figure.
MAX_PAIRS = 15


class Figure(NamedTuple):
  """Panels that belong together.

  Attributes:
    anchor: its name in links and file names.
    title: as a heading.
    says: what is shown and how it was computed.
    views: name of a view -> panels; more than one can be switched between.
    keyed: whether colours stand for arms, so that a legend helps.
    key: what they stand for otherwise, or ().
  """

  anchor: str
  title: str
  says: str
  views: dict[str, list[str]]
  keyed: bool = True
  key: tuple[str, ...] = ()


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Mean over finite seeds and its Student interval, [T, S] -> three of [T].

  The interval is NaN with fewer than two seeds.
  """
  mean, low, high = (np.full(len(values), np.nan) for _ in range(3))
  counts = np.isfinite(values).sum(axis=1)
  for count in set(counts.tolist()) - {0}:
    lines = np.flatnonzero(counts == count)
    picked = np.stack([row[np.isfinite(row)] for row in values[lines]])
    found = mean_interval(picked, statistics.CONFIDENCE, axis=1)
    mean[lines] = found.mean
    low[lines], high[lines] = (
      found.mean - found.half_width,
      found.mean + found.half_width,
    )
  return mean, low, high


def over_steps(
  c: Comparison, metric: str, label: str, limits: tuple[float, float] | None
) -> list[str]:
  """A panel for each task on which some run has the metric.

  Args:
    c: what is compared.
    metric: a number per seed.
    label: of the vertical axis.
    limits: of the metric, which no interval leaves; or None.
  """
  panels = []
  for task in c.tasks:
    series = []
    for arm, cell in c.on(task).items():
      values = cell.columns.get(metric)
      if values is None or values.ndim != 2 or not np.isfinite(values).any():
        continue
      mean, low, high = band(values)
      if limits is not None:
        low, high = np.clip(low, *limits), np.clip(high, *limits)
      colour = c.arms.index(arm)
      series.append(charts.Series(arm, colour, cell.env_steps * 1.0, mean, low, high))
    if series:
      panels.append(charts.lines(task, series, 'environment steps', label))
  return panels


def labels_given(cell: Cell) -> np.ndarray | None:
  """Labels and pairs asked for so far, mean over seeds, [T]; None where never asked."""
  total = None
  for name in ('labels_asked', 'pairs_asked'):
    if name in cell.columns:
      column = np.nan_to_num(np.asarray(cell.columns[name], float))
      so_far = np.maximum.accumulate(column, axis=0).mean(axis=1)
      total = so_far if total is None else total + so_far
  return total


def difference(
  c: Comparison, task: str, first: str, second: str
) -> statistics.Estimate | None:
  """Mean of `first - second` over common seeds; None with fewer than two of them."""
  on = c.on(task)
  if first not in on or second not in on:
    return None
  a, b = on[first], on[second]
  seeds = sorted(set(a.seeds) & set(b.seeds))
  if len(seeds) < 2:
    return None
  x, y = ([s.final[s.seeds.index(i)] for i in seeds] for s in (a, b))
  mean, half = paired_difference(x, y, statistics.CONFIDENCE)
  return statistics.Estimate(mean, mean - half, mean + half)


def shared(c: Comparison) -> tuple[list[str], list[str]]:
  """Tasks that arms are pooled over, and these arms: those run on every such task.

  Scores of a task can be pooled with those of others where it has a scale; nothing is
  shared where none has.
  """
  tasks = [task for task in c.tasks if task in c.scale]
  complete = [a for a in c.arms if all((t, a) in c.cells for t in tasks)]
  if complete or not tasks:
    return tasks, complete if tasks else []
  # No arm was run everywhere: the task that most arms share.
  task = max(tasks, key=lambda t: len(c.on(t)))
  return [task], list(c.on(task))


def pairs(c: Comparison) -> list[tuple[str, str]]:
  """All pairs of arms that share a task, the later in order first."""
  return [(b, a) for a, b in itertools.combinations(c.arms, 2) if c.common(a, b)]


def drawn_pairs(c: Comparison) -> list[tuple[str, str]]:
  """Pairs that figures have room for, in the order of `pairs`.

  Those that learn from the same come first, then those with the first arm.
  """

  def rank(pair: tuple[str, str]) -> tuple[bool, bool]:
    second, first = pair
    return c.families[first] != c.families[second], first != c.arms[0]

  found = pairs(c)
  kept = set(sorted(found, key=rank)[:MAX_PAIRS])
  return [pair for pair in found if pair in kept]


def undrawn_sentence(c: Comparison) -> str:
  """What of `pairs` figures do not show; '' where they show all."""
  number = len(pairs(c))
  if number <= MAX_PAIRS:
    return ''
  return (
    f'Figures show {MAX_PAIRS} of the {number} pairs of arms, first those that learn'
    ' from the same kind of feedback, then those with the first arm; the table of'
    ' comparisons has all.'
  )


def estimate_row(
  label: str, colour: int, found: statistics.Estimate, signed: bool = False
) -> charts.Row:
  """A row of `charts.intervals` with its numbers written out."""
  value, low, high = (float(v) for v in found)
  return charts.Row(label, colour, value, low, high, text_of(found, signed))


def text_of(found: statistics.Estimate, signed: bool = False) -> str:
  """`0.61 [0.52, 0.70]`; the interval is left out where it is not known."""
  sign = '+' if signed else ''
  digits = decimals(found.value)
  value = f'{float(found.value):{sign}.{digits}f}'
  if not np.isfinite(found.low):
    return value
  low, high = (f'{float(edge):{sign}.{digits}f}' for edge in found[1:])
  return f'{value} [{low}, {high}]'


def reference_sentence(c: Comparison) -> str:
  """What shares are shares of, where there are any."""
  names = list(dict.fromkeys(c.references[task] for task in c.tasks if task in c.scale))
  paid = [arm in c.true_reward for arm in names]
  if all(paid):
    kind = f'which {"is" if len(names) == 1 else "are"} paid the true reward'
  else:
    kind = 'on each task the arm that was run on most tasks, and of several the best'
    if any(paid):
      kind += ', among those paid the true reward where there are any'
  return f'the mean final return of {joined(names)}, {kind}'


def joined(names: Sequence[str]) -> str:
  """Names in a sentence."""
  if len(names) < 2:
    return ''.join(names)
  return ', '.join(names[:-1]) + ' and ' + names[-1]
