"""Figures draw the numbers that the runs have left, each where it belongs."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from scipy import stats

from rlfb_jax.reports import comparison, records, reward_figures, score_figures
from tests.reports.fake_runs import write_run


def compare(root):
  return comparison.compare(*records.find([str(root)]))


def lines_of(panel):
  """Name -> what the read-out of a line says, as arrays or None."""
  found = json.loads(ET.fromstring(panel).get('data-plot'))
  return {
    line['n']: {
      k: None if line[k] is None else np.array(line[k], float) for k in 'xylh'
    }
    for line in found
  }


def bars_of(panel):
  """(arm, kind) -> what a bar says."""
  titles = re.findall(r'<title>(.+?), (.+?): (.+?)</title>', panel)
  return {(arm, kind): text for arm, kind, text in titles}


def marks(panel, name):
  return [mark for mark in ET.fromstring(panel) if mark.get('class') == name]


def half_width(values):
  """Of the 95 % Student interval of a mean."""
  return stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)


def test_the_path_of_training_is_over_the_scaled_learned_return(tmp_path):
  def spoil(line):
    i = line['env_steps'] / 100
    # Each seed on a scale of its own; the true returns fall.
    line['learned_return'] = [i**2, 1000 - 7 / i] if i > 2 else [None, 5.0]
    line['episode_return'] = [200 - i, 300 - 5 * i]

  write_run(tmp_path / 'a', seeds=(0, 1), lines=22, spoil=spoil)
  c = compare(tmp_path)
  ((panel,),) = reward_figures.over_optimisation(c).views.values()
  i = np.arange(3.0, 23.0)  # Where both seeds have both.
  first, second = (i**2 - 9) / (22**2 - 9), (7 / 3 - 7 / i) / (7 / 3 - 7 / 22)
  # Means over two lines, a tenth; the first line stands for what was before it.
  want = [
    (values + np.append(values[0], values[:-1])) / 2
    for values in ((first + second) / 2, 250 - 3 * i)
  ]
  drawn = lines_of(panel)['rbrl']
  np.testing.assert_allclose(drawn['x'], want[0], atol=1e-5)
  np.testing.assert_allclose(drawn['y'], want[1], rtol=1e-3)
  assert re.search(r'<text class="label"[^>]*>learned return, scaled<', panel)
  (dot,), (path,) = marks(panel, 'dot k0'), marks(panel, 'line k0')
  assert path.get('d').endswith(f'L{dot.get("cx")} {dot.get("cy")}')


@pytest.mark.parametrize(
  ('figure', 'metrics', 'limits'),
  [
    (
      reward_figures.quality,
      {
        'rank correlation': 'held_out_rank_correlation',
        'accuracy, unseen pairs': 'held_out_accuracy',
        'correlation per step': 'reward_correlation',
        'accuracy, own labels': 'reward_accuracy',
      },
      ((-1, 1), (0, 1), (-1, 1), (0, 1)),
    ),
    (
      reward_figures.watched,
      {
        'saturation': 'policy/saturation',
        'entropy': 'policy/entropy',
        'gradient ratio': 'kl/gradient_ratio',
        'KL value': 'kl/value',
        'gate open': 'kl/gate_open',
      },
      [(-np.inf, np.inf)] * 5,
    ),
  ],
)
def test_each_view_draws_its_own_metric_within_its_limits(
  tmp_path, figure, metrics, limits
):
  def values(k, i):
    return [0.1 * k + 0.01 * i, 0.1 * k + 0.9 * (i % 2), 0.2]

  def spoil(line):
    i = line['env_steps'] // 100
    for k, metric in enumerate(metrics.values()):
      if i != 4:
        line[metric] = values(k, i)

  write_run(tmp_path / 'a', spoil=spoil, labels=False)
  write_run(tmp_path / 'b', method='ppo', labels=False)
  found = figure(compare(tmp_path)).views
  assert list(found) == list(metrics)
  for k, (view, (low, high)) in enumerate(zip(metrics, limits, strict=True)):
    (panel,) = found[view]
    (drawn,) = lines_of(panel).values()
    want = np.array([values(k, i) for i in range(1, 11) if i != 4])
    mean, half = want.mean(axis=1), half_width(want.T)
    np.testing.assert_allclose(drawn['y'], mean, rtol=1e-3)
    np.testing.assert_allclose(drawn['l'], np.maximum(mean - half, low), atol=1e-3)
    np.testing.assert_allclose(drawn['h'], np.minimum(mean + half, high), atol=1e-3)
    np.testing.assert_array_equal(drawn['x'], [100 * i for i in range(1, 11) if i != 4])


def test_over_labels_a_point_is_what_was_reached_before_there_were_more(tmp_path):
  write_run(tmp_path / 'a')
  write_run(tmp_path / 'b', method='ppo', level=20.0, labels=False)
  views = score_figures.learning_curves(compare(tmp_path)).views
  assert list(views) == ['environment steps', 'labels given', 'wall time']
  (panel,) = views['labels given']
  ((arm, drawn),) = lines_of(panel).items()
  assert arm == 'rbrl'
  # Labels come on lines 1, 4, 7 and 10, and the mean return on line i is i + 1.
  np.testing.assert_array_equal(drawn['x'], [10, 40, 70, 100])
  np.testing.assert_array_equal(drawn['y'], [4, 7, 10, 11])
  np.testing.assert_allclose(drawn['h'] - drawn['y'], half_width([0, 1, 2]), atol=1e-2)
  # Who has no labels is a level at the mean final return, 20 + 1, on the same scale.
  (path,) = marks(panel, 'line k1')
  at = [float(point.split()[1]) for point in path.get('d').split('L')]
  slope, start = np.polyfit(drawn['y'], at, 1)
  (level,) = marks(panel, 'level k0')
  assert float(level.get('y1')) == pytest.approx(start + 21 * slope, abs=0.3)
  assert '>ppo, no labels<' in panel


def test_evaluations_are_a_view_of_the_runs_that_have_them(tmp_path):
  def evaluate(line):
    if line['env_steps'] % 300 == 0:
      line['evaluation_return'] = [line['env_steps'] + s for s in (0.0, 30.0, 60.0)]

  write_run(tmp_path / 'a', spoil=evaluate)
  write_run(tmp_path / 'b', method='ppo')
  write_run(tmp_path / 'c', method='ppo', task='cheetah_run')
  views = score_figures.learning_curves(compare(tmp_path)).views
  assert list(views)[-1] == 'deterministic evaluation'
  (panel,) = views['deterministic evaluation']
  assert '>walker_walk<' in panel
  ((arm, drawn),) = lines_of(panel).items()
  assert arm == 'rbrl'
  np.testing.assert_array_equal(drawn['x'], [300, 600, 900])
  np.testing.assert_array_equal(drawn['y'], [330, 630, 930])
  half = half_width([0, 30, 60])
  np.testing.assert_allclose(drawn['l'], drawn['y'] - half, atol=0.1)
  # Training episodes stay what they were.
  trained = lines_of(views['environment steps'][1])['rbrl']
  np.testing.assert_array_equal(trained['y'], np.arange(2, 12))


def test_labels_are_counted_by_kind_after_the_last_session(tmp_path):
  def answer(line):
    if line['env_steps'] in (100, 500):
      i = line['env_steps'] // 100
      line['answer_counts'] = [[7 * i, 2 * i, 0, i], [5 * i, 4 * i, i, 0]]

  # There are more kinds of answers than classes.
  few = {'seeds': (0, 1), 'rating_num_classes': 3}
  write_run(tmp_path / 'a', **few)
  write_run(tmp_path / 'b', method='pebble', labels=False, spoil=answer, **few)
  figure = reward_figures.label_histogram(compare(tmp_path))
  assert list(figure.views) == ['ratings', 'pairs']
  (ratings,), (pairs,) = figure.views.values()
  assert bars_of(ratings) == {
    ('rbrl', '0'): '50',
    ('rbrl', '1'): '30',
    ('rbrl', '2'): '20',
  }
  assert bars_of(pairs) == {
    ('pebble', 'first better'): '30',
    ('pebble', 'second better'): '15',
    ('pebble', 'equal'): '2.5',
    ('pebble', 'skipped'): '2.5',
  }
  heights = [float(bar.get('height')) for bar in marks(pairs, 'bar k0')]
  unit = heights[0] / 30
  np.testing.assert_allclose(heights, np.array([30, 15, 2.5, 2.5]) * unit, atol=0.1)
  assert not marks(pairs, 'error')
  only_pairs = reward_figures.label_histogram(compare(tmp_path / 'b'))
  assert list(only_pairs.views) == ['pairs']


def test_divergences_at_the_end_are_bars_with_intervals(tmp_path):
  by_seed = np.array([[1.0, 0.2, 4.0], [2.0, 0.4, np.nan], [6.0, 0.6, 5.0]])

  def diverge(line):
    values = (
      by_seed + line['env_steps'] / 1000 - 1
    )  # On the last line they are as above.
    line['kl/action'] = [[None if np.isnan(v) else v for v in row] for row in values]
    if line['env_steps'] == 1000:
      line['kl/state'] = [[10.0, None, None]] * 3

  write_run(tmp_path / 'a', method='rbrl_kl', spoil=diverge)
  write_run(tmp_path / 'b', labels=False)
  figure = reward_figures.final_divergences(compare(tmp_path))
  assert list(figure.views) == ['actions', 'states']
  (actions,), (states,) = figure.views.values()
  halves = [half_width(by_seed[:, 0]), half_width(by_seed[:, 1])]
  pair = half_width(np.array([4.0, 5.0]))
  assert bars_of(actions) == {
    ('rbrl_kl', '0'): f'3 [0, {3 + halves[0]:.4g}]',  # From 0 up.
    ('rbrl_kl', '1'): f'0.4 [0, {0.4 + halves[1]:.4g}]',
    ('rbrl_kl', '2'): f'4.5 [0, {4.5 + pair:.4g}]',
  }
  assert bars_of(states) == {('rbrl_kl', '0'): '10 [10, 10]'}
  said = (
    'KL of states, nats by rating class, 0 is worst: rbrl_kl: 10 [10, 10], none, none'
  )
  assert said in states
  heights = [float(bar.get('height')) for bar in marks(actions, 'bar k1')]
  unit = heights[0] / 3
  np.testing.assert_allclose(heights, np.array([3, 0.4, 4.5]) * unit, atol=0.1)
  spans = [
    re.match(r'M\S+ (\S+)V([\d.]+)M', line.get('d')).groups()
    for line in marks(actions, 'error')
  ]
  lengths = [float(foot) - float(head) for foot, head in spans]
  want = np.array([3 + halves[0], 0.4 + halves[1], 4.5 + pair]) * unit
  np.testing.assert_allclose(lengths, want, atol=0.2)


def test_divergences_are_drawn_by_class_over_the_steps(tmp_path):
  write_run(tmp_path / 'a')
  ((panel,),) = reward_figures.divergences(compare(tmp_path)).views.values()
  drawn = lines_of(panel)
  assert list(drawn) == ['class 0', 'class 1']  # Nobody has the third.
  np.testing.assert_array_equal(drawn['class 0']['x'], [100, 400, 700, 1000])
  np.testing.assert_allclose(drawn['class 0']['y'], [0.1, 0.4, 0.7, 1.0])
  np.testing.assert_allclose(drawn['class 1']['y'], 0.2)
