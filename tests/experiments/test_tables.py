"""The papers' tables: each row can be run, and what was found stands in its place."""

import argparse
import collections
import json
import math

import kept
import mrn_tables
import outcomes
import pytest
import rbrl_kl_table
import tables
from outcomes import Outcome

from rlfb_jax.bin import flags, launch, sweep
from rlfb_jax.methods.config import to_sections
from rlfb_jax.sweeps.folder import JobFolder
from rlfb_jax.sweeps.runner import STOPPED
from rlfb_jax.training import files, run_dir

ALL = [
  (table, row, scale)
  for table in (rbrl_kl_table, mrn_tables)
  for row in table.ROWS
  for scale in table.SIZES
]


@pytest.mark.parametrize(
  ('table', 'row', 'scale'), ALL, ids=[f'{t.NAME}-{r.name}-{s}' for t, r, s in ALL]
)
def test_every_row_makes_jobs_of_its_task(tmp_path, table, row, scale):
  jobs = _jobs(row, table.SIZES[scale], _options(tmp_path))
  assert {job.config.run.task for job in jobs} == {row.task}
  size = table.SIZES[scale]
  steps = {job.config.total_env_steps for job in jobs}
  published = 4_000_000 if table is rbrl_kl_table else 1_000_000
  assert steps == {size.steps.get(row.task, published)}
  assert sum(len(job.rows) for job in jobs) % size.seeds == 0
  if table is rbrl_kl_table:
    for method in rbrl_kl_table.METHODS:
      own = [job for job in jobs if job.config.run.method == method]
      classes = [row.flags['rating_num_classes'] for job in own for row in job.rows]
      assert sorted(classes) == sorted(rbrl_kl_table.CLASSES * size.seeds)
      # All numbers of classes share a program, as far as memory allows.
      assert len(own) == 1 + (scale == 'paper' and row.name == 'quadruped_walk')
    return
  arms = _mrn_arms(jobs)
  if row.name in mrn_tables.TASKS:
    methods = [('mrn', True), *((m, False) for m in mrn_tables.METHODS[:-1])]
    assert arms == dict.fromkeys(methods, size.seeds)
    thresholds = {
      job.config.surf.threshold for job in jobs if job.config.run.method == 'surf'
    }
    preset = launch.parse([f'--preset=surf_{row.name.partition("_")[0]}'])
    assert thresholds == {preset.surf.threshold}
  else:
    methods = [(m, False) for m in ('pebble', 'surf', 'mrn')]
    assert arms == dict.fromkeys(methods, size.seeds)
    budget = int(row.name.rpartition('_')[2])
    for job in jobs:
      assert job.config.pairs.label_budget == budget
      assert job.config.pairs.labels_per_session * 10 == budget


def _mrn_arms(jobs):
  """Rows by method and by whether the outer gradient is zero."""
  return collections.Counter(
    (job.config.run.method, job.config.mrn.zero_gradient)
    for job in jobs
    for _ in job.rows
  )


@pytest.mark.parametrize('task', mrn_tables.TASKS)
def test_published_rows_run_what_the_methods_presets_say(tmp_path, task):
  """But for what MRN's figures share: length, and its budget on quadruped."""
  shared = {'total_env_steps', 'method', 'task', 'mrn_interval', 'mrn_zero_gradient'}
  shared |= {'pairs_label_budget', 'pairs_labels_per_session'}
  (row,) = (row for row in mrn_tables.ROWS if row.name == task)
  jobs = _jobs(row, mrn_tables.SIZES['paper'], _options(tmp_path))
  for job in jobs:
    method = job.config.run.method
    sac = 'sac_quadruped' if task == 'quadruped_walk' else 'sac'
    preset = sac if method == 'sac' else f'{method}_{task.partition("_")[0]}'
    sections = ('sac_', 'replay_', 'eval_')
    if method != 'sac':
      sections += ('pairs_', 'reward_', 'surf_', 'rune_', 'mrn_')
    wanted = launch.flag_values(launch.parse([f'--preset={preset}']))
    found = launch.flag_values(job.config)
    for flag in set(wanted) - shared:
      if flag.startswith(sections):
        assert found[flag] == wanted[flag], (method, flag)


def _options(out, **more):
  given = {'scale': 'paper', 'shard': '0/1', 'max_rows': 0}
  given |= {'dry_run': False, 'draw_only': False}
  return argparse.Namespace(out=out, **{**given, **more})


def _jobs(row, size, options):
  return sweep.jobs_of(sweep.parse(tables.command(row, size, options)))


def _finish(job, folder, returns_of=float, **said):
  """Leaves what a finished job leaves; a seed's returns are `returns_of(seed)`.

  Where the job is evaluated on the way it is on every other line, at 100 more.
  `said` is what the evaluation says of itself in place of the truth.
  """
  JobFolder(folder / job.name).write_order(job)
  lines = flags.to_lines(to_sections(job.config), omit=launch.NOT_KEPT)
  run = run_dir.create(str(folder / job.name), '', lines, rows=job.rows)
  values = [returns_of(row.seed) for row in job.rows]
  values = [None if math.isnan(v) else v for v in values]
  total = job.config.total_env_steps
  with open(run.metrics, 'w') as file:
    for i in range(1, 11):
      line = {'env_steps': i * total // 10, 'episode_return': values}
      if job.config.run.eval_interval and i % 2 == 0:
        line['evaluation_return'] = [None if v is None else v + 100 for v in values]
      file.write(json.dumps(line) + '\n')
  own = {'task': job.config.run.task, 'seed': job.config.run.seed}
  record = {**own, **said, 'returns': [[v, v] for v in values]}
  (run.report / 'evaluation.json').write_text(json.dumps(record))
  run_dir.write_finished(run, total, 1.0)


def _outcome(row, arm, values, q_error=None):
  return Outcome(row, arm, [0, 1, 2], 1000, values, values, q_error, [1000], [values])


def test_our_numbers_stand_beside_the_published_ones():
  plain = {'method': 'rbrl', 'rating_num_classes': '4'}
  pushed = {'method': 'rbrl_kl', 'rating_num_classes': '4'}
  lines = rbrl_kl_table.lay_out(
    [
      _outcome('walker_walk', plain, [100.0, 110.0, 120.0]),
      _outcome('walker_walk', pushed, [131.0, 139.0, 150.0]),
    ]
  )
  (row,) = [line for line in lines if line.startswith('| walker_walk')]
  cells = [cell.strip() for cell in row.split('|')[1:-1]]
  assert cells[:2] == ['walker_walk', '4']
  assert cells[3] == '110.0 ± 24.8'
  assert cells[4] == '606'
  assert cells[5].startswith('140.0')
  assert cells[6] == '742'
  assert cells[7].startswith('30.0 ± 2.5')
  assert cells[8] == '+136'
  assert any('23 of 24 rows were not run' in line for line in lines)
  assert any(
    'its public code: 757 with n = 3, 745 with n = 4' in line for line in lines
  )
  # Where only the gain could be read.
  third = _outcome('cheetah_run', {**plain, 'rating_num_classes': '3'}, [1.0, 2.0, 3.0])
  (row, *rest) = rbrl_kl_table.lay_out([third])[4:]
  assert row.split('|')[-2].strip() == '+60.0 %'
  assert not any('public code' in line for line in rest)


def test_the_control_is_told_from_the_method():
  def arm(method, zero):
    return {'method': method, 'mrn_zero_gradient': str(zero)}

  lines = mrn_tables.lay_out(
    [
      _outcome(
        'walker_walk', arm('mrn', False), [300.0, 310.0, 320.0], [0.1, 0.1, 0.2]
      ),
      _outcome('walker_walk', arm('mrn', True), [290.0, 300.0, 310.0], [0.3, 0.3, 0.3]),
    ]
  )
  assert '- walker_walk: mrn minus mrn_zero, paired: 10.0 ± 0.0' in lines
  (row,) = [line for line in lines if line.startswith('| mrn |')]
  assert row.endswith('| 0.10 (sd 0.02) |')


def test_a_shortened_surf_is_told_from_the_published_one():
  arm = {'method': 'surf', 'mrn_zero_gradient': 'False'}
  outcome = _outcome('walker_walk', arm, [300.0, 310.0, 320.0])
  said = 'a twentieth of its published steps'
  assert said in '\n'.join(mrn_tables.lay_out([outcome], shortened=True))
  assert said not in '\n'.join(mrn_tables.lay_out([outcome]))
  other = outcome._replace(arm=arm | {'method': 'pebble'})
  assert said not in '\n'.join(mrn_tables.lay_out([other], shortened=True))


@pytest.fixture
def results(monkeypatch, tmp_path):
  """A folder for raw results, and a sweep that does nothing."""
  monkeypatch.setattr(tables, 'RESULTS', tmp_path / 'results')
  monkeypatch.setattr(kept, 'LOCKS', tmp_path / 'locks')
  monkeypatch.setattr(tables.sweep, 'main', lambda argv: 0)
  return tmp_path / 'results'


def _make(options, rows=mrn_tables.ROWS, sizes=mrn_tables.SIZES):
  arms = ('method', 'mrn_zero_gradient')
  return tables.make('mrn', rows, sizes, options, arms)


def test_jobs_that_memory_cut_become_one_cell(results, tmp_path):
  (row,) = (row for row in mrn_tables.ROWS if row.name == 'quadruped_walk')
  options = _options(tmp_path, rows=[row.name])
  jobs = _jobs(row, mrn_tables.SIZES['paper'], options)
  assert sum(job.config.run.method == 'pebble' for job in jobs) > 1
  for job in jobs:
    _finish(job, tmp_path / row.name)
  found, code = _make(options)
  assert code == 0
  assert len(found) == len(mrn_tables.METHODS)
  for outcome in found:
    assert outcome.seeds == list(range(10))
    assert outcome.training == outcome.evaluation == [float(s) for s in range(10)]
    assert [len(line) for line in outcome.curve] == [10] * 10
    assert outcome.evaluation_steps == list(range(200_000, 1_000_001, 200_000))
    assert outcome.evaluation_curve == [[100.0 + s for s in range(10)]] * 5
  assert '| quadruped_walk | mrn | 1,000,000, 10 | 4.50 ± 2.17 |' in '\n'.join(
    mrn_tables.lay_out(found)
  )


def test_evaluations_on_the_way_are_kept_where_a_run_has_them(results, tmp_path):
  options, _ = _quick_pebble(tmp_path)
  (without,), _ = _make(options)
  assert (without.evaluation_steps, without.evaluation_curve) == ([], [])
  (row,) = (row for row in mrn_tables.ROWS if row.name == 'walker_walk')
  options = _options(tmp_path, rows=[row.name])
  jobs = _jobs(row, mrn_tables.SIZES['paper'], options)
  job, *_ = (job for job in jobs if job.config.run.method == 'pebble')

  def returns_of(seed):
    return math.nan if seed == 1 else float(seed)

  _finish(job, options.out / row.name, returns_of)
  (found,), _ = _make(options)
  assert found.evaluation_curve == []  # A seed has none on any line.
  options.out = tmp_path / 'again'
  _finish(job, options.out / row.name)
  (found,), _ = _make(options)
  assert found.evaluation_curve == [[100.0 + s for s in found.seeds]] * 5
  assert tables.load('mrn', options) == [found]
  # A seed of an older record has no such lines, and so the cell has none.
  older = found._replace(evaluation_steps=(), evaluation_curve=())
  joined = outcomes._join([(found, 0), (older, 1)])
  assert (joined.curve_steps, joined.evaluation_curve) == (found.curve_steps, [])
  assert joined.curve == [[0.0, 1.0]] * 10


def test_a_panel_shows_evaluations_where_all_its_arms_have_them(
  results, tmp_path, monkeypatch
):
  drawn = []
  monkeypatch.setattr(tables, 'plot', lambda *args, **more: drawn.append((args, more)))
  plain = _outcome('walker_walk', {}, [1.0, 2.0, 3.0])
  both = plain._replace(evaluation_steps=[500], evaluation_curve=[[4.0, 5.0, 6.0]])
  panels = {
    'all': {'mrn': both, 'sac': both, 'surf': None},
    'some': {'mrn': both, 'sac': plain},
    'none': {'mrn': None},
  }
  tables.draw('mrn', _options(tmp_path), panels)
  (((path, curves), more),) = drawn
  assert path == results / 'mrn-paper.png'
  assert more['evaluated'] == ['all']
  found = {
    (task, arm): (curve.env_steps.tolist(), curve.returns.tolist())
    for task, arms in curves.items()
    for arm, curve in arms.items()
  }
  evaluated, trained = ([500], [[4.0, 5.0, 6.0]]), ([1000], [[1.0, 2.0, 3.0]])
  assert found == {
    ('all', 'mrn'): evaluated,
    ('all', 'sac'): evaluated,
    ('some', 'mrn'): trained,
    ('some', 'sac'): trained,
  }


def test_what_is_current_takes_the_place_of_what_was_found_before(results, tmp_path):
  row, *_ = mrn_tables.ROWS
  options = _options(tmp_path / 'first', rows=[row.name], scale='quick')

  def finish(size, options, returns_of):
    for job in _jobs(row, size, options):
      if job.config.run.method in ('sac', 'pebble') and job.rows[0].seed < 5:
        _finish(job, options.out / row.name, returns_of)

  quick = mrn_tables.SIZES['quick']
  finish(quick, options, lambda seed: 1.0)
  before, _ = _make(options)
  assert {o.arm['method']: o.seeds for o in before} == {
    'sac': [0, 1, 2],
    'pebble': [0, 1, 2],
  }
  # More seeds of the same runs, on another machine, where two are run again.
  more = quick._replace(seeds=5)
  options.out = tmp_path / 'second'
  finish(more, options, lambda seed: 2.0 + seed)
  (pebble, *_) = (o for o in _make(options)[0] if o.arm['method'] == 'pebble')
  assert pebble.training == [2.0, 3.0, 4.0]
  found, _ = _make(options, sizes={'quick': more})
  assert [o.training for o in found] == [[2.0, 3.0, 4.0, 5.0, 6.0]] * 2
  # Other settings: nothing of before is current.
  longer = quick._replace(steps={row.task: 80_000})
  options.draw_only = True
  with pytest.raises(SystemExit, match='no finished run'):
    _make(options, sizes={'quick': longer})
  options.draw_only = False
  options.out = tmp_path / 'third'
  finish(longer, options, lambda seed: 9.0)
  found, _ = _make(options, sizes={'quick': longer})
  assert [o.env_steps for o in found] == [80_000] * 2


def _quick_pebble(folder, **changes):
  """The first row's job of PEBBLE, finished."""
  row, *_ = mrn_tables.ROWS
  options = _options(folder, rows=[row.name], scale='quick')
  jobs = _jobs(row, mrn_tables.SIZES['quick'], options)
  job, *_ = (job for job in jobs if job.config.run.method == 'pebble')
  _finish(job, folder / row.name, **changes)
  return options, folder / row.name / job.name


def test_an_evaluation_of_another_seed_is_not_taken(results, tmp_path, capsys):
  options, _ = _quick_pebble(tmp_path, seed=7)
  with pytest.raises(SystemExit):
    _make(options)
  assert 'is not the evaluation of the run itself' in capsys.readouterr().err
  assert not results.exists()


def test_what_was_run_is_kept_in_full_and_told_by_todays_defaults(results, tmp_path):
  options, _ = _quick_pebble(tmp_path)
  (found,), _ = _make(options)
  raw = json.loads((results / 'mrn-quick.json').read_text())
  (record,) = raw['outcomes']
  assert 'settings' not in record
  assert record['flags']['method'] == 'pebble'
  assert record['flags']['sac_discount'] == 0.99  # A default.
  assert outcomes.from_json(record).settings == found.settings
  # The default has become another since: these are no runs of today's defaults.
  record['flags']['sac_discount'] = 0.9
  (results / 'mrn-quick.json').write_text(json.dumps(raw))
  options.draw_only, options.out = True, tmp_path / 'nothing'
  with pytest.raises(SystemExit, match='no finished run'):
    _make(options)
  # Older records have settings only; they count as they did.
  record['settings'] = found.settings
  del record['flags'], record['made']
  del record['evaluation_steps'], record['evaluation_curve']
  (results / 'mrn-quick.json').write_text(json.dumps(raw))
  (older,), _ = _make(options)
  assert (older.flags, list(older.made)) == (None, [])
  assert older.training == found.training
  # A flag that is gone: nobody can say what such runs are today.
  assert outcomes.from_json({**record, 'flags': {'gone': 1}}).settings == ''


def test_each_run_says_what_made_it(results, tmp_path):
  options, folder = _quick_pebble(tmp_path)
  path = folder / 'manifest.json'
  manifest = json.loads(path.read_text())
  manifest['git'] = {'revision': 'a', 'changed': False}
  manifest['sessions'] = [{'git': {'revision': r, 'changed': False}} for r in 'abb']
  path.write_text(json.dumps(manifest))
  _make(options)
  raw = json.loads((results / 'mrn-quick.json').read_text())
  (made,) = raw['outcomes'][0]['made']
  assert made == {
    'seeds': [0, 1, 2],
    'started': manifest['started'],
    'git': {'revision': 'a', 'changed': False},
    'versions': manifest['versions'],
    'resumed_by': [{'revision': 'b', 'changed': False}],
  }
  # Seeds of several jobs keep their own.
  first = _outcome('walker_walk', {}, [1.0, 2.0, 3.0])
  first = first._replace(made=[{'seeds': [0, 1, 2], 'git': 'a'}])
  second = first._replace(made=[{'seeds': [0, 1], 'git': 'b'}, {'seeds': [2]}])
  joined = outcomes._join([(first, 0), (second, 1), (second, 2)])
  made = [{'seeds': [0], 'git': 'a'}, {'seeds': [1], 'git': 'b'}, {'seeds': [2]}]
  assert joined.made == made


def test_who_saves_waits_for_others(results, tmp_path, monkeypatch):
  options, _ = _quick_pebble(tmp_path)
  monkeypatch.setattr(kept, 'PATIENCE', 0.02)
  kept.LOCKS.mkdir()
  with (
    files.locked(kept.LOCKS / 'mrn-quick.lock'),
    pytest.raises(SystemExit, match='another process has been saving mrn-quick'),
  ):
    _make(options)
  assert not results.exists()


def test_a_share_that_there_is_not_is_one_sentence(results, tmp_path, capsys):
  row, *_ = mrn_tables.ROWS
  options = _options(tmp_path, rows=[row.name], scale='quick', shard='9')
  options.draw_only = True
  with pytest.raises(SystemExit) as ended:
    _make(options)
  assert ended.value.code == 1
  said = capsys.readouterr().err
  assert '--shard=9' in said
  assert said.count('\n') == 1


def test_a_seed_without_an_episode_is_null_and_told(results, tmp_path):
  row, *_ = mrn_tables.ROWS
  options = _options(tmp_path, rows=[row.name], scale='quick')
  for job in _jobs(row, mrn_tables.SIZES['quick'], options):
    pebble = job.config.run.method == 'pebble'
    _finish(
      job,
      tmp_path / row.name,
      lambda seed, broken=pebble: math.nan if broken and seed == 1 else 20.0 + seed,
    )
  found, _ = _make(options)
  raw = json.loads((results / 'mrn-quick.json').read_text(), parse_constant=pytest.fail)
  (pebble,) = (o for o in raw['outcomes'] if o['arm']['method'] == 'pebble')
  assert pebble['training'] == pebble['evaluation'] == [20.0, None, 22.0]
  lines = mrn_tables.lay_out(found)
  (line,) = [line for line in lines if line.startswith('| walker_walk | pebble')]
  assert '21.0 ± 12.7 (2 of 3 seeds)' in line
  assert '- walker_walk: mrn minus pebble, paired: 0.00 ± 0.00 (2 of 3 seeds)' in lines
  assert outcomes.cell([math.nan, math.nan]) == 'none of 2'


def test_a_table_that_is_stopped_starts_no_further_row(results, tmp_path, monkeypatch):
  rows = mrn_tables.ROWS[:3]
  options = _options(tmp_path, rows=[row.name for row in rows])
  codes = [0, STOPPED, 0]
  monkeypatch.setattr(tables.sweep, 'main', lambda argv: codes.pop(0))
  with pytest.raises(SystemExit) as ended:
    _make(options, rows)
  assert ended.value.code == STOPPED
  assert codes == [0]
  codes = [0, 1, 0]
  assert _make(options, rows) == ([], 1)
  assert codes == []
