"""The figures of a report: which numbers stand in which panel."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from rlfb_jax.reports import statistics, svg
from rlfb_jax.reports.comparison import Cell, Comparison
from rlfb_jax.training.intervals import mean_interval, paired_difference

# More pairs of arms than this are not compared each with each, but with the first.
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


def labels_given(cell: Cell) -> np.ndarray | None:
  """Labels and pairs asked for so far, mean over seeds, [T]; None where never asked."""
  total = None
  for name in ('labels_asked', 'pairs_asked'):
    if name in cell.columns:
      column = np.nan_to_num(np.asarray(cell.columns[name], float))
      so_far = np.maximum.accumulate(column, axis=0).mean(axis=1)
      total = so_far if total is None else total + so_far
  return total


def learning_curves(c: Comparison) -> Figure:
  """True return over steps, labels and time."""
  views: dict[str, list[str]] = {}

  def over(
    view: str, x_label: str, x_of: Callable[[Cell], np.ndarray | None], by_label: bool
  ) -> None:
    for task in c.tasks:
      series, levels = [], []
      for arm, cell in c.on(task).items():
        x, colour = x_of(cell), c.arms.index(arm)
        values = cell.columns['episode_return']
        if x is None or not np.isfinite(x).any():
          if by_label:
            levels.append(svg.Level(f'{arm}, no labels', colour, cell.final.mean()))
          continue
        # With a given number of labels: what it had come to before there were more.
        ended = np.isfinite(values).any(axis=1)
        keep = ended & np.append(x[1:] > x[:-1], True) if by_label else ended
        keep[np.flatnonzero(ended)[-1]] = True
        mean, low, high = band(values[keep])
        series.append(svg.Series(arm, colour, x[keep], mean, low, high))
      if series:
        panel = svg.lines(task, series, x_label, 'true return', levels=levels)
        views.setdefault(view, []).append(panel)

  over('environment steps', 'environment steps', lambda s: s.env_steps * 1.0, False)
  over('labels given', 'labels given', labels_given, True)
  over('wall time', 'minutes, all seeds side by side', _minutes, False)
  return Figure(
    'learning-curves',
    'Learning curves',
    'Mean true return of training episodes, hidden from every method that learns from'
    ' feedback, with 95 % Student intervals over seeds. Over labels, a point is the'
    ' return reached before more labels came; arms that are paid the true reward are'
    ' level lines there. Imported curves know only their total time, taken as spread'
    ' evenly.',
    views,
  )


def _minutes(cell: Cell) -> np.ndarray | None:
  seconds = cell.columns.get('wall_seconds')
  return None if seconds is None else np.asarray(seconds, float) / 60


def aggregates(c: Comparison) -> Figure:
  """Interquartile mean, mean and median over all runs of the tasks that all share."""
  tasks, arms = shared(c)
  kinds = {
    'Interquartile mean': statistics.interquartile_mean,
    'Mean': statistics.mean,
    'Median': statistics.median,
  }
  panels = []
  for title, statistic in kinds.items():
    rows = []
    for arm in arms:
      found = statistics.aggregate(c.shares(arm, tasks), statistic)
      rows.append(estimate_row(arm, c.arms.index(arm), found))
    panels.append(svg.intervals(title, rows, 'share of the reference'))
  return Figure(
    'aggregates',
    'All runs in one number',
    f'Final scores on {_joined(tasks)} as shares of the reference'
    f' ({reference_sentence(c)}), pooled over tasks and seeds. The interquartile mean'
    ' leaves out a quarter of the runs at each end. Intervals: 95 %, percentile'
    f' bootstrap of {statistics.RESAMPLES} resamples, stratified by task'
    ' (Agarwal et al. 2021); the reference counts as known.',
    {'': panels},
    keyed=False,
  )


def profiles(c: Comparison) -> Figure:
  """Share of runs above a score."""
  tasks, arms = shared(c)
  shares = {arm: c.shares(arm, tasks) for arm in arms}
  top = max(float(s.max()) for runs in shares.values() for s in runs)
  low = min(0.0, *(float(s.min()) for runs in shares.values() for s in runs))
  thresholds = np.linspace(low, 1.02 * top, 101)
  series = []
  for arm in arms:
    found = statistics.performance_profile(shares[arm], thresholds)
    colour = c.arms.index(arm)
    series.append(svg.Series(arm, colour, thresholds, *found))
  panel = svg.lines(
    'Performance profiles', series, 'score, share of the reference',
    'share of runs above it', y_range=(0.0, 1.0),
  )  # fmt: skip
  return Figure(
    'profiles',
    'Performance profiles',
    'For every score the share of runs that end above it, averaged over tasks, with'
    ' pointwise 95 % bands of the same bootstrap. A curve that lies higher everywhere'
    ' is better whatever the aggregate.',
    {'': [panel]},
  )


def improvement(c: Comparison) -> Figure:
  """Probability that a run of one arm beats a run of another."""
  rows = []
  for first, second in pairs(c):
    tasks = c.common(first, second)
    found = statistics.probability_of_improvement(
      c.shares(first, tasks), c.shares(second, tasks)
    )
    rows.append(estimate_row(f'{first} > {second}', c.arms.index(first), found))
  panels = []
  if rows:
    panels.append(
      svg.intervals(
        'P(first > second)', rows, 'probability', centre=0.5, x_range=(0.0, 1.0)
      )
    )
  return Figure(
    'improvement',
    'Probability of improvement',
    'The chance that a run of the first arm ends above a run of the second, mean over'
    ' the tasks that both were run on; ties count half (Mann-Whitney U). Intervals:'
    ' 95 %, the same bootstrap. 0.5 means no difference.',
    {'': panels} if panels else {},
    keyed=False,
  )


def paired(c: Comparison) -> Figure:
  """Differences between arms over equal seeds."""
  panels = []
  for task in c.tasks:
    rows = []
    for first, second in pairs(c):
      found = difference(c, task, first, second)
      if found is not None:
        rows.append(
          estimate_row(
            f'{first} minus {second}', c.arms.index(first), found, signed=True
          )
        )
    if rows:
      panels.append(svg.intervals(task, rows, 'difference in true return', centre=0.0))
  return Figure(
    'paired',
    'Paired differences',
    'Difference in final true return between two arms, seed by seed over the seeds that'
    ' both have, with 95 % Student intervals of its mean. An interval that excludes 0'
    ' is not corrected for the number of comparisons.',
    {'': panels} if panels else {},
    keyed=False,
  )


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


# View -> metric, whether it lies in [-1, 1] or [0, 1].
_QUALITY = {
  'rank correlation': ('held_out_rank_correlation', (-1.0, 1.0)),
  'accuracy, unseen pairs': ('held_out_accuracy', (0.0, 1.0)),
  'correlation per step': ('reward_correlation', (-1.0, 1.0)),
  'accuracy, own labels': ('reward_accuracy', (0.0, 1.0)),
}
_WATCHED = {
  'saturation': 'policy/saturation',
  'entropy': 'policy/entropy',
  'gradient ratio': 'kl/gradient_ratio',
  'KL value': 'kl/value',
  'gate open': 'kl/gate_open',
}


def quality(c: Comparison) -> Figure:
  """How well the learned reward agrees with the true one."""
  views = {}
  for view, (metric, limits) in _QUALITY.items():
    panels = _over_steps(c, metric, view, limits)
    if panels:
      views[view] = panels
  return Figure(
    'reward-quality',
    'Quality of the learned reward',
    'Rank correlation (Spearman) of learned and true returns of 128 clips drawn afresh'
    ' from remembered behaviour; accuracy on all pairs of these clips, which nobody was'
    ' asked about; correlation (Pearson) of the rewards of single steps in the newest'
    ' behaviour; accuracy on the labels that the reward was fitted to. Means and 95 %'
    ' Student intervals over seeds.',
    views,
  )


def watched(c: Comparison) -> Figure:
  """What the repulsion does to the policy."""
  views = {}
  for view, metric in _WATCHED.items():
    panels = _over_steps(c, metric, metric, None)
    if panels:
      views[view] = panels
  return Figure(
    'policy',
    'Policy and repulsion',
    'Saturation is the share of actions at their bounds; the gradient ratio is that of'
    ' the KL term to the rest of the policy gradient. Means and 95 % Student intervals'
    ' over seeds.',
    views,
  )


def _over_steps(
  c: Comparison, metric: str, label: str, limits: tuple[float, float] | None
) -> list[str]:
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
      series.append(svg.Series(arm, colour, cell.env_steps * 1.0, mean, low, high))
    if series:
      panels.append(svg.lines(task, series, 'environment steps', label))
  return panels


def over_optimisation(c: Comparison) -> Figure:
  """True against learned return of the same episodes."""
  panels = []
  for task in c.tasks:
    series = []
    for arm, cell in c.on(task).items():
      learned = cell.columns.get('learned_return')
      if learned is None or not np.isfinite(learned).any():
        continue
      true = cell.columns['episode_return']
      both = (np.isfinite(learned) & np.isfinite(true)).all(axis=1)
      if both.sum() < 2:
        continue
      lowest, highest = learned[both].min(axis=0), learned[both].max(axis=0)
      scaled = (learned[both] - lowest) / np.maximum(highest - lowest, 1e-12)
      x, y = _smoothed(scaled.mean(axis=1)), _smoothed(true[both].mean(axis=1))
      series.append(svg.Series(arm, c.arms.index(arm), x, y, ends=True))
    if series:
      panels.append(svg.lines(task, series, 'learned return, scaled', 'true return'))
  return Figure(
    'over-optimisation',
    'Learned against true return',
    'The path of training: mean learned and true return of the same episodes, dots at'
    ' its end. Learned returns have no unit, so each seed is scaled to its own range'
    ' before the mean over seeds. A path that runs to the right and down is'
    ' over-optimised: the learned reward still rises while the true one falls.',
    {'': panels} if panels else {},
  )


def _smoothed(values: np.ndarray) -> np.ndarray:
  """Means over a tenth of the run, so that the path can be followed."""
  width = max(1, len(values) // 10)
  padded = np.concatenate([np.full(width - 1, values[0]), values])
  return np.convolve(padded, np.full(width, 1 / width), 'valid')


def label_histogram(c: Comparison) -> Figure:
  """How many labels lie in each class at the end."""
  panels = []
  for task in c.tasks:
    groups, names = [], []  # type: list[svg.Group], list[str]
    for arm, cell in c.on(task).items():
      counts = cell.columns.get('class_counts')
      if counts is None or counts.ndim != 3:
        continue
      given = np.flatnonzero(np.isfinite(counts).all(axis=(1, 2)))
      if not len(given):
        continue
      values = counts[given[-1]].mean(axis=0)
      names = (
        names if len(names) > len(values) else [str(i) for i in range(len(values))]
      )
      groups.append(svg.Group(arm, c.arms.index(arm), values.tolist()))
    if groups:
      width = len(names)
      groups = [
        g._replace(values=[*g.values, *[0.0] * (width - len(g.values))]) for g in groups
      ]
      panels.append(
        svg.bars(
          task, groups, names, 'rating class, 0 is worst', 'labels, mean per seed'
        )
      )
  return Figure(
    'labels',
    'Labels by class',
    'Ratings given until the last session, by class, mean over seeds.',
    {'': panels} if panels else {},
  )


def divergences(c: Comparison) -> Figure:
  """KL divergence of the policy from each class of rated behaviour."""
  panels, most = [], 0
  for task in c.tasks:
    for arm, cell in c.on(task).items():
      values = cell.columns.get('kl/action')
      if values is None or values.ndim != 3 or not np.isfinite(values).any():
        continue
      series, most = [], max(most, values.shape[2])
      for i in range(values.shape[2]):
        mean, low, high = band(values[:, :, i])
        if np.isfinite(mean).any():
          x = cell.env_steps * 1.0
          series.append(svg.Series(f'class {i}', i, x, mean, low, high))
      title = f'{task}, {arm}'
      panels.append(svg.lines(title, series, 'environment steps', 'KL, nats'))
  return Figure(
    'divergences',
    'Divergence from each class of rated behaviour',
    'KL divergence of the policy from the Gaussian of the actions in each rating class;'
    ' class 0 is the worst. Means and 95 % Student intervals over seeds.',
    {'': panels} if panels else {},
    keyed=False,
    key=tuple(f'class {i}' for i in range(most)),
  )


def all_figures(c: Comparison) -> list[Figure]:
  """Every figure, in order; one whose views are empty has no data."""
  return [
    aggregates(c),
    learning_curves(c),
    profiles(c),
    improvement(c),
    paired(c),
    quality(c),
    over_optimisation(c),
    label_histogram(c),
    divergences(c),
    watched(c),
  ]


def shared(c: Comparison) -> tuple[list[str], list[str]]:
  """Tasks that arms are pooled over, and these arms: those run on every task."""
  complete = [a for a in c.arms if len(c.common(a)) == len(c.tasks)]
  if complete:
    return list(c.tasks), complete
  # No arm was run everywhere: the task that most arms share.
  task = max(c.tasks, key=lambda t: len(c.on(t)))
  return [task], list(c.on(task))


def pairs(c: Comparison) -> list[tuple[str, str]]:
  """Arms to compare, the later in order first; all pairs, or each with the first."""
  found = [(b, a) for a, b in itertools.combinations(c.arms, 2) if c.common(a, b)]
  if len(found) > MAX_PAIRS:
    found = [(b, a) for b, a in found if a == c.arms[0]]
  return found


def estimate_row(
  label: str, colour: int, found: statistics.Estimate, signed: bool = False
) -> svg.Row:
  """A row of `svg.intervals` with its numbers written out."""
  value, low, high = (float(v) for v in found)
  return svg.Row(label, colour, value, low, high, text_of(found, signed))


def text_of(found: statistics.Estimate, signed: bool = False) -> str:
  """`0.61 [0.52, 0.70]`; the interval is left out where it is not known."""
  sign = '+' if signed else ''
  digits = 1 if abs(float(found.value)) >= 10 else 2
  value = f'{float(found.value):{sign}.{digits}f}'
  if not np.isfinite(found.low):
    return value
  low, high = (f'{float(edge):{sign}.{digits}f}' for edge in found[1:])
  return f'{value} [{low}, {high}]'


def reference_sentence(c: Comparison) -> str:
  """What shares are shares of."""
  paid = any(arm in c.true_reward for arm in c.references.values())
  kind = 'which is paid the true reward' if paid else 'the best arm of each task'
  names = list(dict.fromkeys(c.references.values()))
  return f'the mean final return of {_joined(names)}, {kind}'


def _joined(names: Sequence[str]) -> str:
  if len(names) < 2:
    return ''.join(names)
  return ', '.join(names[:-1]) + ' and ' + names[-1]
