"""Figures of why: the learned reward, the labels, and what repels the policy."""

import numpy as np

from rlfb_jax.reports import charts
from rlfb_jax.reports.comparison import Comparison
from rlfb_jax.reports.panels import Figure, band, over_steps

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
  """How many labels lie in each class at the end."""
  panels = []
  for task in c.tasks:
    groups, names = [], []  # type: list[charts.Group], list[str]
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
      groups.append(charts.Group(arm, c.arms.index(arm), values.tolist()))
    if groups:
      panels.append(
        charts.bars(
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
