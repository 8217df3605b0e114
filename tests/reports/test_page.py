"""The page and its tables: whole, self-contained, and true to the numbers."""

import csv
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from rlfb_jax.reports import (
  axes,
  charts,
  comparison,
  page,
  panels,
  records,
  score_figures,
  tables,
  write,
)
from tests.reports.fake_runs import write_run


@pytest.fixture(scope='module')
def compared(tmp_path_factory):
  root = tmp_path_factory.mktemp('runs')
  for task in ('walker_walk', 'cheetah_run'):
    write_run(root / f'{task}1', task=task, method='ppo', level=20.0, labels=False)
    write_run(root / f'{task}2', task=task)
    write_run(root / f'{task}3', task=task, method='rbrl_kl', level=15.0)
  return comparison.compare(*records.find([str(root)]))


def test_the_page_asks_the_network_for_nothing(compared):
  text = page.render(compared, 'A <b>title</b> & more')
  assert '<b>title</b>' not in text
  assert 'Some <CPU>' not in text
  outside = text.replace('http://www.w3.org/2000/svg', '')
  for call in ('http:', 'https:', ' src=', '@import', 'url(', '<link', 'fetch('):
    assert call not in outside, call


def test_every_panel_is_well_formed_and_says_what_it_shows(compared):
  text = page.render(compared, 'x')
  drawn = re.findall(r'<svg class="panel".*?</svg>', text, re.S)
  assert len(drawn) > 15
  for panel in drawn:
    root = ET.fromstring(panel)
    assert len(root.get('aria-label')) > 20
    for mark in root.iter():
      for name, value in mark.attrib.items():
        if name not in ('aria-label', 'data-plot'):
          assert 'nan' not in value
          assert 'inf' not in value
  anchors = re.findall(r'<a href="#([\w-]+)"', text)
  assert len(anchors) > 5
  assert all(f'id="{anchor}"' in text for anchor in anchors)


def test_what_no_run_has_is_left_out_and_said(compared):
  text = page.render(compared, 'x')
  assert 'they would be empty: success, policy and repulsion.' in text
  assert 'id="policy"' not in text
  assert 'id="success"' not in text
  assert 'id="over-optimisation"' in text


def test_scores_in_every_format_are_the_same(compared):
  table = tables.final_scores(compared)
  rows = list(csv.DictReader(io.StringIO(tables.to_csv(table))))
  assert len(rows) == 6
  last = rows[-1]
  assert (last['task'], last['arm'], last['seeds']) == ('walker_walk', 'rbrl_kl', '3')
  # Seeds 15, 16, 17: t(0.975, 2) = 4.303, over the square root of 3.
  assert last['mean'] == '16.0 ± 2.5'
  assert last['share'] == f'{16 / 21:.2f}'
  lines = tables.to_markdown(table).splitlines()
  assert len({line.count('|') for line in lines}) == 1
  assert '| 16.0 ± 2.5 |' in lines[-1]
  latex = tables.to_latex(table)
  assert r'walker\_walk & rbrl\_kl & 3' in latex
  assert r'16.0 $\pm$ 2.5' in latex
  assert '16.0 ± 2.5' in tables.to_html(table)


def test_paired_differences_are_those_of_common_seeds(compared):
  found = panels.difference(compared, 'walker_walk', 'rbrl_kl', 'rbrl')
  np.testing.assert_allclose(found, [5.0, 5.0, 5.0])
  rows = tables.comparisons(compared).rows
  assert len(rows) == 6
  assert rows[-1][1:4] == ('rbrl_kl', 'rbrl', '0-2')
  assert rows[-1][5].startswith('1.00')


def test_figures_show_some_of_many_pairs_and_the_table_all(tmp_path):
  methods = ('ppo', 'sac', 'rbrl', 'rbrl_kl', 'pebble', 'surf', 'mrn')
  for method in methods:
    write_run(tmp_path / method, method=method)
  c = comparison.compare(*records.find([str(tmp_path)]))
  assert len(tables.comparisons(c).rows) == 7 * 6 // 2
  drawn = panels.drawn_pairs(c)
  assert len(drawn) == panels.MAX_PAIRS
  for same in (
    ('sac', 'ppo'),
    ('rbrl_kl', 'rbrl'),
    ('surf', 'mrn'),
    ('surf', 'pebble'),
  ):
    assert same in drawn
  assert {(arm, 'ppo') for arm in methods[1:]} < set(drawn)
  (improvement,) = score_figures.improvement(c).views['']
  (paired,) = score_figures.paired(c).views['']
  assert improvement.count('class="name"') == paired.count('class="name"') == 15
  said = 'Figures show 15 of the 21 pairs of arms'
  for figure in (score_figures.improvement(c), score_figures.paired(c)):
    assert said in figure.says
  assert page.render(c, 'x').count(said) == 3
  write.write(c, tmp_path / 'out', 'x')
  assert len((tmp_path / 'out' / 'comparisons.csv').read_text().splitlines()) == 22


def test_few_pairs_are_all_drawn(compared):
  assert panels.drawn_pairs(compared) == panels.pairs(compared)
  assert panels.undrawn_sentence(compared) == ''


def test_labels_so_far_are_carried_between_sessions(compared):
  given = panels.labels_given(compared.cells['walker_walk', 'rbrl'])
  np.testing.assert_allclose(given, [10, 10, 10, 40, 40, 40, 70, 70, 70, 100])
  assert panels.labels_given(compared.cells['walker_walk', 'ppo']) is None


def test_bands_are_those_of_finite_seeds():
  values = np.array([[1.0, 3.0, np.nan], [1.0, 2.0, 3.0], [np.nan, np.nan, 5.0]])
  mean, low, high = panels.band(values)
  np.testing.assert_allclose(mean, [2.0, 2.0, 5.0])
  np.testing.assert_allclose(high[:2] - mean[:2], [12.706205, 2.484138], rtol=1e-5)
  np.testing.assert_allclose(low[:2], 2 * mean[:2] - high[:2])
  assert np.isnan(low[2])


def test_a_single_run_of_one_arm_makes_a_page_too(tmp_path, compared):
  write_run(tmp_path / 'r', seeds=(0,), lines=3, finished=False)
  c = comparison.compare(*records.find([str(tmp_path)]))
  write.write(compared, tmp_path / 'out', 'an older one')
  path = write.write(c, tmp_path / 'out', 'one')
  text = path.read_text()
  assert 'id="learning-curves"' in text
  assert 'probability of improvement, paired differences' in text
  # What the older report compared is not left beside it.
  assert not list((tmp_path / 'out').glob('comparisons.*'))
  assert (tmp_path / 'out' / 'seeds.csv').read_text().count('\n') == 2


def test_two_long_names_are_set_in_two_lines():
  first, second = 'rbrl_kl kl_gradient_budget=0.3', 'rbrl_kl kl_gradient_budget=1.0'
  for between, sign in ((' > ', '&gt;'), (' minus ', 'minus')):
    row = charts.Row(f'{first}{between}{second}', 0, 0.5, 0.4, 0.6, '0.5')
    svg = charts.intervals('title', [row], 'x')
    assert re.search(rf'<text class="name"[^>]*>{re.escape(first)}</text>', svg)
    assert re.search(rf'<text class="name"[^>]*>{sign} {re.escape(second)}</text>', svg)
    assert 'textLength' not in svg
  short = charts.intervals('title', [row._replace(label='a > b')], 'x')
  assert '>a &gt; b</text>' in short


@pytest.mark.parametrize(
  ('low', 'high', 'expected'),
  [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-3, 12, [0, 5, 10]), (5, 5, [5])],
)
def test_ticks_are_round_numbers_inside(low, high, expected):
  np.testing.assert_allclose(axes.ticks(low, high), expected, atol=1e-12)


@pytest.mark.parametrize(
  ('value', 'text'),
  [(0.25, '0.25'), (1500, '1500'), (25_000, '25k'), (-1.5e6, '-1.5M'), (0.0, '0')],
)
def test_numbers_are_short(value, text):
  assert axes.short(value) == text
