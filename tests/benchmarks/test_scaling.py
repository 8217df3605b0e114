"""The benchmark of meshes: what a process of it measures, and its tables."""

import json
import os
import sys
import time

import pytest
import scaling
import scaling_child


def test_a_child_times_a_mesh_in_each_round():
  order = {
    'task': scaling.TASK,
    'sizes': scaling.QUICK_SIZES,
    'seeds': 2,
    'meshes': ['data:1'],
    'rounds': 2,
    'threads': 1,
    'hosts': {},
  }
  found = scaling_child.main(order)
  assert found['env_steps'] == 2 * 8 * 8
  assert {mesh: len(s) for mesh, s in found['seconds'].items()} == {'data:1': 2}


def test_tables_are_relative_to_the_first_row():
  results = {
    'command': ['python', 'scaling.py'],
    'started': 'today',
    'minutes': 1,
    'processor': 'one',
    'cores': 2,
    'load_average': 0.0,
    'versions': {'jax': '1'},
    'sizes': {'num_envs': 1},
    'records': [
      {
        'kind': 'devices',
        'axis': 'seed',
        'seeds': 8,
        'env_steps': 100,
        'seconds': {'seed:1': [1.0, 2.0, 3.0], 'seed:2': [3.0, 3.0, 3.0]},
      },
      many(processes=1, seeds=1, env_steps=100, seconds=[1.0, 2.0, 4.0]),
      many(processes=2, seeds=10, env_steps=1000, seconds=[16.0, 16.0, 16.0]),
    ],
  }
  text = scaling.markdown(results)
  assert '| --mesh=seed:1 | 8 | 2.000 [1.000-3.000] | 1.00 | 50 |' in text
  assert '| --mesh=seed:2 | 8 | 3.000 | 1.50 | 33 |' in text
  assert '| 1 | 1 | 2.0 [1.0-4.0] | 50 | 1.00 |' in text
  assert '| 2 | 10 | 16.0 | 62 | 1.25 |' in text


def many(seconds, **facts):
  return {'kind': 'many', 'seconds': {'seed:1': seconds}, **facts}


def test_who_waits_for_a_dead_process_is_ended_too():
  waits = [sys.executable, '-c', 'import time; time.sleep(60)']
  dies = [sys.executable, '-c', 'raise SystemExit("worn out")']
  start = time.monotonic()
  with pytest.raises(RuntimeError, match='worn out'):
    scaling.run_together([waits, dies], dict(os.environ), timeout=50)
  with pytest.raises(RuntimeError, match='Process 0 has not ended'):
    scaling.run_together([waits], dict(os.environ), timeout=0.5)
  assert time.monotonic() - start < 40
  says = [sys.executable, '-c', 'print("x" * 200_000)']
  (said,) = scaling.run_together([says], dict(os.environ), timeout=50)
  assert len(said) == 200_000


def test_what_was_measured_stays_where_the_rest_fails(tmp_path, monkeypatch):
  def run(orders, **kwargs):
    if len(orders) > 1:
      raise RuntimeError('no second process')
    return [{'env_steps': 1, 'seconds': {mesh: [1.0] for mesh in orders[0]['meshes']}}]

  monkeypatch.setattr(scaling, '_run', run)
  out = tmp_path / 'new' / 'raw.json'
  with pytest.raises(RuntimeError, match='no second process'):
    scaling.main(['--quick', f'--out={out}'])
  assert len(json.loads(out.read_text())['records']) == 3


def test_a_process_finds_what_its_parent_finds(monkeypatch):
  monkeypatch.setenv('PYTHONPATH', 'somewhere')
  assert scaling._environment(2)['PYTHONPATH'].endswith(f'{os.pathsep}somewhere')
