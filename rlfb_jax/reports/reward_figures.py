"""Figures of why: the learned reward, the labels, and what repels the policy."""

from collections.abc import Callable, Sequence

import numpy as np

from rlfb_jax.feedback.preference_store import ANSWERS
from rlfb_jax.reports import charts
from rlfb_jax.reports.comparison import Comparison, final_scores
from rlfb_jax.reports.panels import Figure, band, over_steps
from rlfb_jax.reports.statistics import Estimate

# View -> metric and its limits.
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
_CLASSES = 'rating class, 0 is worst'


def quality(c: Comparison) -> Figure:
  """How well the learned reward agrees with the true one."""
  views = {}
  for view, (metric, limits) in _QUALITY.items():
    panels = over_steps(c, metric, view, limits)
    if panels:
      views[view] = panels
  return Figure(
    'reward-quality',
    'Quality of the learned reward',
    'Rank correlation (Spearman) of learned and true returns of 128 clips drawn afresh'
    ' from remembered behaviour; accuracy on all pairs of these clips, which nobody was'
    ' asked about; correlation (Pearson) of the rewards of single steps in the newest'
    ' behaviour; accuracy on the labels that the reward was fitted to. Means and 95 %'
    ' Student intervals over seeds. The first'
    ' two fall, too, where all remembered behaviour has become alike.',
    views,
  )


def watched(c: Comparison) -> Figure:
  """What the repulsion does to the policy."""
  views = {}
  for view, metric in _WATCHED.items():
    panels = over_steps(c, metric, metric, None)
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
      series.append(charts.Series(arm, c.arms.index(arm), x, y, ends=True))
    if series:
      panels.append(charts.lines(task, series, 'learned return, scaled', 'true return'))
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
  """How many labels are of each kind at the end."""
  ratings = _bars(c, 'class_counts', _last_counts, _CLASSES, 'labels, mean per seed')
  pairs = _bars(
    c, 'answer_counts', _last_counts, 'answer', 'pairs, mean per seed', ANSWERS
  )
  views = {'ratings': ratings, 'pairs': pairs}
  return Figure(
    'labels',
    'Labels by kind',
    'Ratings given until the last session, by class, and answers to the pairs that were'
    ' asked about; means over seeds.',
    {view: panels for view, panels in views.items() if panels},
  )


def _bars(
  c: Comparison,
  metric: str,
  of: Callable[[np.ndarray, np.ndarray], Estimate],
  x_label: str,
  y_label: str,
  names: Sequence[str] = (),
) -> list[str]:
  """A panel for each task on which some run has the metric.

  Args:
    c: what is compared.
    metric: a list of n numbers per seed.
    of: `(env_steps [T], metric [T, S, n]) -> what is drawn, [n]`.
    x_label: what the n numbers are told by.
    y_label: what they are.
    names: of the n bars; they are counted from 0 where there are none.
  """
  panels = []
  for task in c.tasks:
    groups = []
    for arm, cell in c.on(task).items():
      values = cell.columns.get(metric)
      if values is None or values.ndim != 3:
        continue
      found = of(cell.env_steps, values)
      if np.isfinite(found.value).any():
        bars = (each.tolist() for each in found)
        groups.append(charts.Group(arm, c.arms.index(arm), *bars))
    if groups:
      most = max(len(g.values) for g in groups)
      kinds = names or [str(i) for i in range(most)]
      panels.append(charts.bars(task, groups, kinds, x_label, y_label))
  return panels


def _last_counts(env_steps: np.ndarray, counts: np.ndarray) -> Estimate:
  """Means over seeds after the last session, without intervals."""
  del env_steps
  nothing = np.full(counts.shape[2], np.nan)
  given = np.flatnonzero(np.isfinite(counts).all(axis=(1, 2)))
  mean = counts[given[-1]].mean(axis=0) if len(given) else nothing
  return Estimate(mean, nothing, nothing)


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
          series.append(charts.Series(f'class {i}', i, x, mean, low, high))
      title = f'{task}, {arm}'
      panels.append(charts.lines(title, series, 'environment steps', 'KL, nats'))
  return Figure(
    'divergences',
    'Divergence from each class of rated behaviour',
    'KL divergence of the policy from the Gaussian of the actions in each rating class;'
    ' class 0 is the worst. Means and 95 % Student intervals over seeds.',
    {'': panels} if panels else {},
    keyed=False,
    key=tuple(f'class {i}' for i in range(most)),
  )


def final_divergences(c: Comparison) -> Figure:
  """KL divergence of the policy from each class at the end, arms side by side."""
  views = {
    view: _bars(c, metric, _at_the_end, _CLASSES, f'KL of {view}, nats')
    for view, metric in {'actions': 'kl/action', 'states': 'kl/state'}.items()
  }
  return Figure(
    'final-divergences',
    'Divergence at the end',
    'KL divergence from each class of rated behaviour over the last tenth of the steps:'
    ' of actions given states and, where it was recorded, of states. Means and 95 %'
    ' Student intervals over the seeds that have the class.',
    {view: panels for view, panels in views.items() if panels},
  )


def _at_the_end(env_steps: np.ndarray, values: np.ndarray) -> Estimate:
  """Means over seeds of what `final_scores` makes of each entry, with intervals."""
  entries = np.moveaxis(values, 2, 0)
  return Estimate(*band(np.stack([final_scores(env_steps, each) for each in entries])))
