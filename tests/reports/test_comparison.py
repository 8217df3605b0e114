"""From folders to arms, seeds and scores; nothing is dropped in silence."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from rlfb_jax.reports import (
  comparison,
  figures,
  page,
  panels,
  records,
  reward_figures,
  score_figures,
  tables,
)
from rlfb_jax.training import returns
from rlfb_jax.training.evaluate import Episodes
from tests.reports.fake_runs import write_run


def compare(*paths):
  return comparison.compare(*records.find([str(path) for path in paths]))


def test_scores_are_those_of_the_last_tenth_as_shares_of_the_true_reward(tmp_path):
  write_run(tmp_path / 'sweep' / 'a', level=20.0, method='ppo')
  write_run(tmp_path / 'sweep' / 'b', level=10.0)
  c = compare(tmp_path)
  assert c.arms == ('ppo', 'rbrl')
  assert c.true_reward == {'ppo'}
  assert c.references == {'walker_walk': 'ppo'}
  np.testing.assert_allclose(c.cells['walker_walk', 'rbrl'].final, [10, 11, 12])
  np.testing.assert_allclose(c.scale['walker_walk'], 21)
  (shares,) = c.shares('rbrl', c.common('ppo', 'rbrl'))
  np.testing.assert_allclose(shares, np.array([10, 11, 12]) / 21)
  assert c.problems == ()


def test_a_task_whose_reference_is_not_above_zero_is_no_part_of_what_is_pooled(
  tmp_path,
):
  for task, level in (('walker_walk', 20.0), ('cheetah_run', -21.0)):
    write_run(tmp_path / task / 'a', level=level, method='ppo', task=task)
    write_run(tmp_path / task / 'b', level=level - 5, task=task)
  both, alone = compare(tmp_path), compare(tmp_path / 'walker_walk')
  assert both.scale == {'walker_walk': 21.0}
  (said,) = both.problems
  assert said == (
    'cheetah_run: the reference, ppo, has a mean final return of -20; shares of what is'
    ' not above 0 mean nothing, and the task is left out of what is pooled over tasks.'
  )
  for figure in (score_figures.aggregates, score_figures.profiles):
    assert figure(both).views == figure(alone).views
  assert 'Final scores on walker_walk as shares' in score_figures.aggregates(both).says
  table = tables.final_scores(both)
  shares = [(row[0], row[1], row[-1]) for row in table.rows]
  assert shares == [
    ('cheetah_run', 'ppo', ''),
    ('cheetah_run', 'rbrl', ''),
    ('walker_walk', 'ppo', '1.00'),
    ('walker_walk', 'rbrl', f'{16 / 21:.2f}'),
  ]
  assert 'No share on cheetah_run,' in table.says
  # Which of two runs is the better needs no scale.
  (panel,) = score_figures.improvement(both).views['']
  assert 'rbrl &gt; ppo: 0.00 [0.00, 0.00]' in panel


def test_where_no_task_has_a_scale_nothing_is_pooled(tmp_path):
  write_run(tmp_path / 'a', level=-20.0)
  c = compare(tmp_path)
  assert score_figures.aggregates(c).views == {}
  assert score_figures.profiles(c).views == {}
  assert 'Share: of' not in tables.final_scores(c).says
  text = page.render(c, 'x')
  said = 'they would be empty: all runs in one number, success, performance profiles'
  assert said in text


def test_rows_with_flags_of_their_own_are_arms_of_their_own(tmp_path):
  flags = [{'kl_beta': 0.1}, {'kl_beta': 0.1}, {'kl_beta': 0.5}, {'kl_beta': 0.5}]
  write_run(tmp_path / 'r', seeds=(0, 1, 0, 1), row_flags=flags)
  c = compare(tmp_path)
  assert c.arms == ('rbrl kl_beta=0.1', 'rbrl kl_beta=0.5')
  assert [cell.seeds for cell in c.cells.values()] == [(0, 1), (0, 1)]
  assert comparison.differing_flags(c) == {
    'kl_beta': {'rbrl kl_beta=0.1': '0.1', 'rbrl kl_beta=0.5': '0.5'}
  }


def test_arms_of_a_sweep_bear_the_names_that_they_were_given(tmp_path):
  flags = [{'kl_beta': 0.1}] * 2 + [{'kl_beta': 0.3}] * 2
  root = write_run(tmp_path / 'a', seeds=(0, 1, 0, 1), row_flags=flags)
  names = ['weak', 'weak', 'strong', 'strong']
  rows = [{'seed': 0, 'flags': f, 'arm': n} for f, n in zip(flags, names, strict=True)]
  write_run(tmp_path / 'b', seeds=(0, 1), method='ppo')
  order = root / 'job.json'

  def arms():
    return set(compare(tmp_path).arms)

  order.write_text(json.dumps({'arguments': [], 'rows': rows}))
  assert arms() == {'weak', 'strong', 'ppo'}
  # Of the same name and not the same, they are told apart as ever.
  for row in rows:
    row['arm'] = 'push'
  order.write_text(json.dumps({'arguments': [], 'rows': rows}))
  assert arms() == {'push kl_beta=0.1', 'push kl_beta=0.3', 'ppo'}
  nameless = {'rbrl kl_beta=0.1', 'rbrl kl_beta=0.3', 'ppo'}
  for text in ('', '{}', json.dumps({'rows': rows[:3]}), json.dumps({'rows': [1] * 4})):
    order.write_text(text)
    assert arms() == nameless, text


def test_a_flag_that_is_off_goes_without_saying(tmp_path):
  for i, (beta, shuffled) in enumerate([(0.1, 'true'), (0.1, 'false'), (0.5, 'true')]):
    flags = {'kl_beta': beta, 'kl_shuffled_labels': shuffled}
    write_run(tmp_path / str(i), **flags)
  assert compare(tmp_path).arms == (
    'rbrl kl_beta=0.1',
    'rbrl kl_beta=0.1 kl_shuffled_labels',
    'rbrl kl_beta=0.5 kl_shuffled_labels',
  )


def test_classes_that_a_run_does_not_have_are_not_in_its_columns(tmp_path):
  flags = [{'rating_num_classes': n} for n in (2, 3, 3)]

  def pad(line):
    for name in {'class_counts', 'kl/action'} & set(line):
      line[name] = [[4.0, 2.0, None], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]

  def leave_two(line):
    for name in {'class_counts', 'kl/action'} & set(line):
      line[name] = [[2.0, 4.0], [3.0, 3.0]]

  write_run(tmp_path / 'a', seeds=(0, 0, 1), row_flags=flags, spoil=pad)
  # Seeds of the same arm whose program had room for fewer classes.
  write_run(tmp_path / 'b', seeds=(1, 2), seed=1, rating_num_classes=2, spoil=leave_two)
  c = compare(tmp_path)
  fewer, more = c.cells.values()
  assert c.arms == ('rbrl rating_num_classes=2', 'rbrl rating_num_classes=3')
  assert fewer.columns['class_counts'].shape == (10, 3, 2)
  assert more.columns['class_counts'].shape == (10, 2, 3)
  (bars,) = reward_figures.label_histogram(c).views['ratings']
  assert bars.count('<rect class="bar') == 2 + 3
  assert 'rating_num_classes=2: 3, 3;' in bars
  first, second = reward_figures.divergences(c).views['']
  assert 'class 2' not in first
  assert 'class 2' in second


def test_arms_are_named_by_what_differs_within_a_task_only(tmp_path):
  for task, scale in (('walker_walk', 20), ('cheetah_run', 10)):
    for method in ('rbrl', 'rbrl_kl'):
      write_run(tmp_path / task / method, task=task, method=method, rating_max=scale)
  c = compare(tmp_path)
  assert c.arms == ('rbrl', 'rbrl_kl')
  assert c.tasks == ('cheetah_run', 'walker_walk')


def test_runs_of_the_same_arm_are_joined_and_doubles_named(tmp_path):
  write_run(tmp_path / 'a', seeds=(0, 1))
  write_run(tmp_path / 'b', seeds=(2, 3), seed=2)
  write_run(tmp_path / 'c', seeds=(1, 4), level=99.0, lines=8)
  c = compare(tmp_path)
  cell = c.cells['walker_walk', 'rbrl']
  assert sorted(cell.seeds) == [0, 1, 2, 3, 4]
  assert cell.columns['episode_return'].shape == (8, 5)
  # Of the two runs of seed 1 the longer counts.
  np.testing.assert_allclose(cell.columns['episode_return'][-1, cell.seeds.index(1)], 9)
  said = ' '.join(c.problems)
  assert 'seeds 1 of c were run elsewhere too' in said
  assert 'up to the shortest' in said


def test_a_run_all_of_whose_seeds_were_run_for_longer_is_left_out_and_named(tmp_path):
  write_run(tmp_path / 'a', seeds=(0, 1, 2))
  write_run(tmp_path / 'b', seeds=(0, 2), level=99.0, lines=6)
  c = compare(tmp_path)
  cell = c.cells['walker_walk', 'rbrl']
  assert cell.seeds == (0, 1, 2)
  assert [record.source for record in cell.records] == ['a']
  np.testing.assert_allclose(cell.final, [10, 11, 12])
  (said,) = c.problems
  assert said == (
    'rbrl on walker_walk: seeds 0, 2 of b were run elsewhere too, and the longer run'
    ' counts; nothing else is in it, and it is left out.'
  )


def test_broken_and_missing_seeds_are_named(tmp_path):
  def spoil(line):
    line['non_finite_updates'][2] = 4.0
    line['reward_non_finite'] = [0.0, 2.0, 1.0]
    if line['env_steps'] > 800:
      line['kl/gradient_dropped'] = [0.5, 0.0, 0.0]
    if line['env_steps'] > 500:
      line['episode_return'][1] = None

  write_run(tmp_path / 'a', spoil=spoil)
  write_run(tmp_path / 'b', method='ppo')
  c = compare(tmp_path)
  assert c.cells['walker_walk', 'rbrl'].seeds == (0, 2)
  said = ' '.join(c.problems)
  assert 'rbrl on walker_walk: seeds 1 have no finite return' in said
  care = '; it counts, but read it with care.'
  for sentence in (
    f'seed 2 left out 4 updates whose gradient was not finite{care}',
    'seed 1 left out 20 steps of the reward whose loss was not finite.',
    f'seed 2 left out 10 steps of the reward whose loss was not finite{care}',
    f'seed 0 dropped repulsions that were not finite in 2 chunks{care}',
  ):
    assert f'rbrl on walker_walk: {sentence}' in c.problems
  assert 'rbrl on walker_walk: seeds 1, which other arms have, are missing.' in said


def test_an_unfinished_run_and_an_unreadable_one_are_named(tmp_path):
  write_run(tmp_path / 'a', finished=False, lines=6)
  broken = write_run(tmp_path / 'b')
  (broken / 'metrics.jsonl').write_text('not JSON\n{}\n')
  empty = write_run(tmp_path / 'c')
  (empty / 'metrics.jsonl').write_text('')
  said = ' '.join(compare(tmp_path).problems)
  assert 'a is not complete: it is at 600 of 1,000 steps (seeds 0-2).' in said
  assert 'b cannot be read and is left out: line 1 of ' in said
  assert 'metrics.jsonl cannot be read; take it out' in said
  assert 'it stopped before it had written any metrics' in said


@pytest.mark.parametrize(
  ('flags', 'length'),
  [
    ({'method': 'rbrl'}, ' of 4,000,000'),
    ({'method': 'pebble'}, ' of 1,000,000'),
    ({'method': 'rbrl', 'agent': 'sac'}, ' of 1,000,000'),
    ({'method': 'one_of_long_ago'}, ''),
  ],
)
def test_an_unfinished_run_of_the_published_length_is_named(tmp_path, flags, length):
  write_run(tmp_path / 'a', finished=False, total_env_steps=0, **flags)
  write_run(tmp_path / 'b', method='ppo', total_env_steps=0)
  (said, *_) = compare(tmp_path).problems
  assert said == f'a is not complete: it is at 1,000{length} steps (seeds 0-2).'


def test_success_is_a_column_where_a_task_tells_it(tmp_path):
  told = write_run(tmp_path / 'a', task='mine') / 'report' / returns.FILE
  write_run(tmp_path / 'b')
  found, success = np.full((3, 2), 7.0), np.array([[1, 1], [0, 1], [0, 0]], bool)
  returns.save(told, 'mine', 0, Episodes(found))
  c = compare(tmp_path)
  assert 'success' not in tables.final_scores(c).head
  assert 'success' not in tables.final_scores(c).says
  returns.save(told, 'mine', 0, Episodes(found, success))
  c = compare(tmp_path)
  np.testing.assert_array_equal(c.cells['mine', 'rbrl'].success, [1, 0.5, 0])
  table = tables.final_scores(c)
  at = table.head.index('success')
  column = {row[0]: row[at] for row in table.rows}
  assert column['walker_walk'] == ''
  assert column['mine'].startswith('0.50 ±')
  head, *lines = tables.seeds_csv(c).splitlines()
  assert head.endswith('evaluation_return,evaluation_success')
  assert [line.split(',')[-2:] for line in lines if 'mine' in line] == [
    ['7', '1'],
    ['7', '0.5'],
    ['7', '0'],
  ]


def test_success_is_a_figure_where_a_run_tells_it(tmp_path):
  def tell(line):
    seeds = len(line['episode_return'])
    line['success_rate'] = [line['env_steps'] / 1000] * seeds
    if line['env_steps'] % 500 == 0:
      line['evaluation_success'] = [0.5, 1.0, 1.0]

  write_run(tmp_path / 'a', task='mine', spoil=tell)
  write_run(tmp_path / 'b')
  c = compare(tmp_path)
  figure = score_figures.success(c)
  assert list(figure.views) == ['deterministic episodes', 'training episodes']
  (deterministic,), (training,) = figure.views.values()
  assert '>mine<' in training
  (drawn,) = json.loads(ET.fromstring(deterministic).get('data-plot'))
  assert drawn['x'] == [500, 1000]
  np.testing.assert_allclose(drawn['y'], 2.5 / 3, atol=1e-4)
  assert max(drawn['h']) == 1  # A share.
  anchors = [f.anchor for f in figures.all_figures(c)]
  assert anchors[anchors.index('learning-curves') + 1] == 'success'
  assert 'id="success"' in page.render(c, 'x')
  assert score_figures.success(compare(tmp_path / 'b')).views == {}


def test_seeds_without_an_evaluation_hide_no_others(tmp_path):
  first = write_run(tmp_path / 'a', task='mine')
  write_run(tmp_path / 'b', task='mine', seeds=(3, 4), seed=3)
  assert compare(tmp_path).cells['mine', 'rbrl'].evaluation is None
  success = np.array([[1, 1], [0, 1], [0, 0]], bool)
  found = Episodes(np.full((3, 2), 7.0), success)
  returns.save(first / 'report' / returns.FILE, 'mine', 0, found)
  c = compare(tmp_path)
  cell = c.cells['mine', 'rbrl']
  assert cell.seeds == (0, 1, 2, 3, 4)
  np.testing.assert_array_equal(cell.evaluation, [7, 7, 7, np.nan, np.nan])
  np.testing.assert_array_equal(cell.success, [1, 0.5, 0, np.nan, np.nan])
  table = tables.final_scores(c)
  (row,) = (dict(zip(table.head, row, strict=True)) for row in table.rows)
  assert row['evaluation'] == '7.00 ± 0.00 (3 of 5 seeds)'
  assert row['success'].startswith('0.50 ±')
  assert row['success'].endswith(' (3 of 5 seeds)')
  assert 'of 5' not in row['mean']
  lines = tables.seeds_csv(c).splitlines()
  assert [line.split(',')[-2:] for line in lines[4:]] == [['', '']] * 2


def test_the_reference_is_said_to_be_what_it_is(tmp_path):
  said = {}
  for name, arms in {
    'one': {'walker_walk': ('ppo', 'rbrl'), 'cheetah_run': ('ppo',)},
    'two': {'walker_walk': ('ppo', 'rbrl'), 'cheetah_run': ('sac',)},
    'some': {'walker_walk': ('ppo', 'rbrl'), 'cheetah_run': ('rbrl',)},
    'none': {'walker_walk': ('rbrl', 'rbrl_kl'), 'cheetah_run': ('rbrl',)},
  }.items():
    for task, methods in arms.items():
      for method in methods:
        write_run(tmp_path / name / task / method, task=task, method=method)
    said[name] = panels.reference_sentence(compare(tmp_path / name))
  rule = ', on each task the arm that was run on most tasks, and of several the best'
  mean = 'the mean final return of '
  assert said == {
    'one': f'{mean}ppo, which is paid the true reward',
    'two': f'{mean}sac and ppo, which are paid the true reward',
    'some': f'{mean}rbrl and ppo{rule}, among those paid the true reward where there'
    ' are any',
    'none': f'{mean}rbrl{rule}',
  }


def test_an_evaluation_of_another_task_is_left_out_and_named(tmp_path):
  run = write_run(tmp_path / 'a')
  path = run / 'report' / returns.FILE
  found = np.full((3, 2), 7.0)
  returns.save(path, 'walker_walk', 0, Episodes(found))
  c = compare(tmp_path)
  np.testing.assert_allclose(c.cells['walker_walk', 'rbrl'].evaluation, [7, 7, 7])
  assert c.problems == ()
  for task, seed in (('walker_run', 0), ('walker_walk', 3)):
    returns.save(path, task, seed, Episodes(found))
    c = compare(tmp_path)
    assert c.cells['walker_walk', 'rbrl'].evaluation is None
    (said,) = c.problems
    assert said == (
      f'The evaluation of a is left out: {path} is not the evaluation of the run'
      f' itself, task=walker_walk seed=0; name it evaluation-{task}-{seed}.json.'
    )


@pytest.mark.parametrize(
  ('values', 'score'),
  [
    # The last tenth of ten or twenty lines.
    (9 * [1.0] + [5.0], 5.0),
    (17 * [1.0] + [2.0, 4.0, 8.0], 6.0),
    (17 * [1.0] + [2.0, 4.0, np.nan], 4.0),
    # Twice that.
    (16 * [1.0] + [2.0, 4.0, np.nan, np.nan], 3.0),
    (16 * [1.0] + 4 * [np.nan], np.nan),
    # Few lines.
    ([1.0, 3.0, 8.0], 8.0),
    ([1.0, 3.0, 8.0, np.nan], 4.0),
    ([1.0, 3.0, 8.0, 8.0, np.nan], np.nan),
    (3 * [np.nan], np.nan),
  ],
)
def test_what_a_final_score_is_the_mean_of(values, score):
  steps = 100 * np.arange(1, len(values) + 1)
  found = comparison.final_scores(steps, np.array(values)[:, None])
  np.testing.assert_allclose(found, [score])


def test_jobs_of_a_sweep_that_nobody_started_are_named(tmp_path):
  write_run(tmp_path / 'sweep' / 'a')
  (tmp_path / 'sweep' / 'b').mkdir()
  (tmp_path / 'sweep' / 'b' / 'job.json').write_text('{}')
  assert compare(tmp_path).problems == ('b of sweep has not been started.',)


def test_arms_bear_their_ingredients_and_runs_of_other_lengths_are_told_apart(tmp_path):
  write_run(tmp_path / 'a', agent='sac', add='kl')
  write_run(tmp_path / 'b', method='ppo', lines=9, total_env_steps=900)
  write_run(tmp_path / 'c', method='ppo')
  c = compare(tmp_path)
  assert c.arms == (
    'ppo total_env_steps=1000',
    'ppo total_env_steps=900',
    'rbrl@sac+kl',
  )
  assert 'final scores are those of different numbers of steps' in c.problems[0]


def test_runs_that_share_a_program_share_its_time_and_each_job_has_its_clock(tmp_path):
  rates = [{'kl_beta': 0.1}, {'kl_beta': 0.1}, {'kl_beta': 0.5}, {'kl_beta': 0.5}]
  write_run(tmp_path / 'a', seeds=(0, 1, 0, 1), row_flags=rates)

  def slow(line):
    line['wall_seconds'] *= 10

  # More seeds of the first arm, in a program for them alone on a slower machine.
  write_run(tmp_path / 'b', seeds=(2, 3, 4, 5), seed=2, spoil=slow)
  c = compare(tmp_path)
  clock = 6.0 * np.arange(1, 11)
  first, second = (c.cells['walker_walk', f'rbrl kl_beta={b}'] for b in (0.1, 0.5))
  assert first.seeds == (0, 1, 2, 3, 4, 5)
  # Two runs that took a quarter of one clock, and four that took one of the other.
  np.testing.assert_allclose(
    first.seconds_per_run, (2 * clock / 4 + 4 * 10 * clock / 4) / 6
  )
  np.testing.assert_allclose(second.seconds_per_run, clock / 4)
  (panel,) = score_figures.learning_curves(c).views['wall time']
  assert '>wall minutes per run<' in panel
  drawn = json.loads(ET.fromstring(panel).get('data-plot'))
  assert drawn[1]['x'][-1] == 60 / 4 / 60


def test_an_arm_one_of_whose_clocks_is_not_known_has_no_wall_time(tmp_path):
  write_run(tmp_path / 'a')
  write_run(
    tmp_path / 'b', seeds=(3,), seed=3, spoil=lambda line: line.pop('wall_seconds')
  )
  c = compare(tmp_path)
  assert c.cells['walker_walk', 'rbrl'].seconds_per_run is None
  assert 'wall time' not in score_figures.learning_curves(c).views


def test_older_runs_without_rows_count_from_their_first_seed(tmp_path):
  write_run(tmp_path / 'a', rows=False, seed=5)
  assert compare(tmp_path).cells['walker_walk', 'rbrl'].seeds == (5, 6, 7)


def test_imported_curves_bring_flags_evaluation_and_time(tmp_path):
  record = {
    'task': 'walker_walk', 'arm': 'rbrl', 'flags': ['# x', '--method=rbrl', '--seed=3'],
    'command': 'python x', 'seconds': 120.0, 'manifest': {}, 'env_steps': [100, 200],
    'episode_return': [[None, 1.0], [2.0, 3.0]], 'evaluation': [[1.0, 3.0], [4.0, 4.0]],
    'labels_asked': [[None, None], [5, 5]],
  }  # fmt: skip
  (tmp_path / 'walker_walk-rbrl.json').write_text(json.dumps(record))
  (tmp_path / 'other.json').write_text('{}')
  cell = compare(tmp_path).cells['walker_walk', 'rbrl']
  assert cell.seeds == (3, 4)
  np.testing.assert_allclose(cell.evaluation, [2.0, 4.0])
  np.testing.assert_allclose(cell.seconds_per_run, [30.0, 60.0])
  np.testing.assert_allclose(cell.final, [2.0, 3.0])


def test_a_folder_without_runs_is_refused_in_one_sentence(tmp_path):
  with pytest.raises(ValueError, match='No runs were found'):
    records.find([str(tmp_path)])
  with pytest.raises(ValueError, match='is not there'):
    records.find([str(tmp_path / 'nowhere')])


def test_numbers_in_a_row_are_shortened():
  assert records.numbers([4, 0, 1, 2, 7]) == '0-2, 4, 7'
