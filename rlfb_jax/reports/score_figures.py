"""Figures of what arms reach: curves, aggregates, profiles, comparisons."""

from collections.abc import Callable, Sequence

import numpy as np

from rlfb_jax.reports import charts, statistics
from rlfb_jax.reports.comparison import Cell, Comparison
from rlfb_jax.reports.panels import (
  Figure,
  band,
  difference,
  drawn_pairs,
  estimate_row,
  joined,
  labels_given,
  over_steps,
  reference_sentence,
  shared,
  undrawn_sentence,
)

# View -> metric.
_SUCCESS = {
  'deterministic episodes': 'evaluation_success',
  'training episodes': 'success_rate',
}


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
            levels.append(charts.Level(f'{arm}, no labels', colour, cell.final.mean()))
          continue
        # With a given number of labels: what it had come to before there were more.
        ended = np.isfinite(values).any(axis=1)
        keep = ended & np.append(x[1:] > x[:-1], True) if by_label else ended
        keep[np.flatnonzero(ended)[-1]] = True
        mean, low, high = band(values[keep])
        series.append(charts.Series(arm, colour, x[keep], mean, low, high))
      if series:
        panel = charts.lines(task, series, x_label, 'true return', levels=levels)
        views.setdefault(view, []).append(panel)

  over('environment steps', 'environment steps', lambda s: s.env_steps * 1.0, False)
  over('labels given', 'labels given', labels_given, True)
  over('wall time', 'wall minutes per run', _minutes, False)
  evaluated = over_steps(c, 'evaluation_return', 'true return, deterministic', None)
  if evaluated:
    views['deterministic evaluation'] = evaluated
  return Figure(
    'learning-curves',
    'Learning curves',
    'Mean true return of training episodes, hidden from every method that learns from'
    ' feedback, with 95 % Student intervals over seeds. Over labels, a point is the'
    ' return reached before more labels came; arms that are paid the true reward are'
    ' level lines there. Over wall time, runs that share a program share its time'
    ' equally, and a point is the mean over the runs of an arm. Imported curves may'
    ' know only their total time, taken as spread evenly. Deterministic evaluation: of'
    ' episodes on the way that do not explore, for runs with `--eval_interval`.',
    views,
  )


def _minutes(cell: Cell) -> np.ndarray | None:
  return None if cell.seconds_per_run is None else cell.seconds_per_run / 60


def success(c: Comparison) -> Figure:
  """Share of episodes that had success, where tasks tell it."""
  views = {}
  for view, metric in _SUCCESS.items():
    panels = over_steps(c, metric, 'share with success', (0.0, 1.0))
    if panels:
      views[view] = panels
  return Figure(
    'success',
    'Success',
    'Share of episodes in which the task was solved at any step: of deterministic ones'
    ' on the way, and of those of training, which explore. Means and 95 % Student'
    ' intervals over seeds, on the tasks that tell it.',
    views,
  )


def aggregates(c: Comparison) -> Figure:
  """Interquartile mean, mean and median over all runs of the tasks that all share."""
  tasks, arms = shared(c)
  absent = [arm for arm in c.arms if arm not in arms]
  kinds = {
    'Interquartile mean': statistics.interquartile_mean,
    'Mean': statistics.mean,
    'Median': statistics.median,
  }
  panels = []
  for title, statistic in kinds.items() if tasks else ():
    rows = []
    for arm in arms:
      found = statistics.aggregate(c.shares(arm, tasks), statistic)
      rows.append(estimate_row(arm, c.arms.index(arm), found))
    panels.append(charts.intervals(title, rows, 'share of the reference'))
  return Figure(
    'aggregates',
    'All runs in one number',
    f'Final scores on {joined(tasks)} as shares of the reference'
    f' ({reference_sentence(c)}), pooled over tasks and seeds. The interquartile mean'
    ' leaves out a quarter of the runs at each end. Intervals: 95 %, percentile'
    f' bootstrap of {statistics.RESAMPLES} resamples, stratified by task'
    ' (Agarwal et al. 2021); the reference counts as known.'
    ' With fewer than about ten seeds a task such an interval is too narrow.'
    + (f' Not run on all of them: {joined(absent)}.' if absent else ''),
    {'': panels} if panels else {},
    keyed=False,
  )


def profiles(c: Comparison) -> Figure:
  """Share of runs above a score."""
  tasks, arms = shared(c)
  panels = [_profile(c, tasks, arms)] if tasks else []
  return Figure(
    'profiles',
    'Performance profiles',
    'For every score the share of runs that end above it, averaged over tasks, with'
    ' pointwise 95 % bands of the same bootstrap. A curve that lies higher everywhere'
    ' is better whatever the aggregate.',
    {'': panels} if panels else {},
  )


def _profile(c: Comparison, tasks: Sequence[str], arms: Sequence[str]) -> str:
  shares = {arm: c.shares(arm, tasks) for arm in arms}
  top = max(float(s.max()) for runs in shares.values() for s in runs)
  low = min(0.0, *(float(s.min()) for runs in shares.values() for s in runs))
  thresholds = np.linspace(low, 1.02 * top, 101)
  series = []
  for arm in arms:
    found = statistics.performance_profile(shares[arm], thresholds)
    colour = c.arms.index(arm)
    series.append(charts.Series(arm, colour, thresholds, *found))
  return charts.lines(
    'Performance profiles', series, 'score, share of the reference',
    'share of runs above it', y_range=(0.0, 1.0),
  )  # fmt: skip


def improvement(c: Comparison) -> Figure:
  """Probability that a run of one arm beats a run of another."""
  rows = []
  for first, second in drawn_pairs(c):
    tasks = c.common(first, second)
    scores = ([c.cells[task, arm].final for task in tasks] for arm in (first, second))
    found = statistics.probability_of_improvement(*scores)
    rows.append(estimate_row(f'{first} > {second}', c.arms.index(first), found))
  panels = []
  if rows:
    panels.append(
      charts.intervals(
        'P(first > second)', rows, 'probability', centre=0.5, x_range=(0.0, 1.0)
      )
    )
  return Figure(
    'improvement',
    'Probability of improvement',
    'The chance that a run of the first arm ends above a run of the second, mean over'
    ' the tasks that both were run on; ties count half (Mann-Whitney U). Intervals:'
    ' 95 %, the same bootstrap. 0.5 means no difference.' + _undrawn(c),
    {'': panels} if panels else {},
    keyed=False,
  )


def paired(c: Comparison) -> Figure:
  """Differences between arms over equal seeds."""
  panels = []
  for task in c.tasks:
    rows = []
    for first, second in drawn_pairs(c):
      found = difference(c, task, first, second)
      if found is not None:
        rows.append(
          estimate_row(
            f'{first} minus {second}', c.arms.index(first), found, signed=True
          )
        )
    if rows:
      panels.append(
        charts.intervals(task, rows, 'difference in true return', centre=0.0)
      )
  return Figure(
    'paired',
    'Paired differences',
    'Difference in final true return between two arms, seed by seed over the seeds that'
    ' both have, with 95 % Student intervals of its mean. An interval that excludes 0'
    ' is not corrected for the number of comparisons.' + _undrawn(c),
    {'': panels} if panels else {},
    keyed=False,
  )


def _undrawn(c: Comparison) -> str:
  """The end of a caption."""
  said = undrawn_sentence(c)
  return f' {said}' if said else ''
