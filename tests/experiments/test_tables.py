"""The papers' tables: each row can be run, and what was found stands in its place."""

import argparse

import mrn_tables
import pytest
import rbrl_kl_table
import tables
from tables import Outcome

from rlfb_jax.bin import sweep

ALL = [(rbrl_kl_table, row) for row in rbrl_kl_table.ROWS]
ALL += [(mrn_tables, row) for row in mrn_tables.ROWS]


@pytest.mark.parametrize('scale', ['paper', 'quick', 'tiny'])
@pytest.mark.parametrize(
  ('table', 'row'), ALL, ids=[f'{t.NAME}-{row.name}' for t, row in ALL]
)
def test_every_row_makes_jobs_of_its_task(monkeypatch, tmp_path, table, row, scale):
  commands = []
  monkeypatch.setattr(tables.sweep, 'main', lambda argv: commands.append(argv) or 0)
  options = argparse.Namespace(out=tmp_path, shard='0/1', dry_run=False)
  tables.run(row, table.SIZES[scale], options)
  jobs = sweep.jobs_of(sweep.parse(commands[0]))
  assert {job.config.run.task for job in jobs} == {row.task}
  size = table.SIZES[scale]
  steps = {job.config.total_env_steps for job in jobs}
  published = 4_000_000 if table is rbrl_kl_table else 1_000_000
  assert steps == {size.steps.get(row.task, published)}
  assert sum(len(job.rows) for job in jobs) % size.seeds == 0
  if table is rbrl_kl_table:
    classes = {job.config.rating.num_classes for job in jobs}
    assert classes == set(rbrl_kl_table.CLASSES)
    assert {job.config.run.method for job in jobs} == {'rbrl', 'rbrl_kl'}
  elif row.name in mrn_tables.TASKS:
    methods = [job.config.run.method for job in jobs]
    assert set(methods) == {'sac', 'pebble', 'surf', 'rune', 'mrn'}
    assert sum(job.config.mrn.zero_gradient for job in jobs) >= 1
  else:
    budget = int(row.name.rpartition('_')[2])
    assert {job.config.pairs.label_budget for job in jobs} == {budget}


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
