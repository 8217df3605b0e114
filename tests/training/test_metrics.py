"""Metrics on disk: strict JSON, all seeds, readable back."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.training import metrics, run_dir


@pytest.fixture
def run(tmp_path):
  return run_dir.RunDir(tmp_path)


def _strict(line):
  def refuse(constant):
    raise AssertionError(f'{constant} is not JSON')

  return json.loads(line, parse_constant=refuse)


def test_lines_are_strict_json_with_all_seeds(run):
  with metrics.MetricsWriter(run, tensorboard=False) as writer:
    writer.write(
      2000,
      {
        'loss': jnp.array([0.1, jnp.nan, jnp.inf]),
        'count': jnp.array([1, 2, 3]),
        'classes': np.ones((3, 2), np.float32),
        'seconds': 1.5,
        'phase': 'learn',
      },
    )
    # On disk at once, not when the writer is closed.
    (line,) = run.metrics.read_text().splitlines()
  assert _strict(line) == {
    'env_steps': 2000,
    'loss': [0.1, None, None],
    'count': [1, 2, 3],
    'classes': [[1.0, 1.0]] * 3,
    'seconds': 1.5,
    'phase': 'learn',
  }


def test_float32_values_survive_the_file(run):
  values = np.random.default_rng(0).normal(size=50).astype(np.float32) * 1e-7
  with metrics.MetricsWriter(run, tensorboard=False) as writer:
    writer.write(1, {'x': values})
  np.testing.assert_array_equal(metrics.read(run.root)['x'][0].astype('f4'), values)


def test_reading_back_fills_gaps_and_forgives_a_crash(run):
  with metrics.MetricsWriter(run, tensorboard=False) as writer:
    writer.write(1, {'a': [1.0, np.nan]})
    writer.write(2, {'a': [3.0, 4.0], 'b': [5.0, 6.0]})
  with run.metrics.open('a') as file:
    file.write('{"env_steps": 3, "a": [1.')
  found = metrics.read(run.metrics)
  np.testing.assert_array_equal(found['env_steps'], [1, 2])
  np.testing.assert_array_equal(found['a'], [[1.0, np.nan], [3.0, 4.0]])
  np.testing.assert_array_equal(found['b'], [[np.nan, np.nan], [5.0, 6.0]])


@pytest.mark.parametrize(
  'garbage', [b'broken\n', b'\xff\xfe\0\n', b'{"a": 1}\n', b'3\n']
)
def test_garbage_before_other_lines_is_refused_by_its_number(run, garbage):
  run.metrics.write_bytes(b'{"env_steps": 1}\n' + garbage + b'{"env_steps": 3}\n')
  with pytest.raises(ValueError, match=r'line 2 of .* cannot be read'):
    metrics.read(run.root)


def test_a_second_writer_appends(run):
  for step in (1, 2):
    with metrics.MetricsWriter(run, tensorboard=False) as writer:
      writer.write(step, {})
  np.testing.assert_array_equal(metrics.read(run.root)['env_steps'], [1, 2])


@pytest.fixture
def said():
  return []


def write_lines(run, steps, said, **kwargs):
  with metrics.MetricsWriter(
    run, tensorboard=False, say=said.append, **kwargs
  ) as writer:
    for step in steps:
      writer.write(step, {})
  return metrics.read(run.root)['env_steps'].tolist()


@pytest.mark.parametrize('after', [2, 3, None])
def test_half_a_last_line_is_dropped_and_told(run, said, after):
  write_lines(run, (1, 2), said)
  with run.metrics.open('a') as file:
    file.write('{"env_steps": 3, "a": [1.')
  assert write_lines(run, (3,), said, after=after) == [1, 2, 3]
  assert said == [f'line 3 of {run.metrics} is cut short; left out.']
  assert not list(run.root.glob('*.damaged'))


@pytest.mark.parametrize('garbage', [b'broken', b'\xff\xfe\0', b'{"a": 1}', b'3'])
def test_garbage_between_lines_is_put_aside_and_told(run, said, garbage):
  write_lines(run, (1, 2, 3), said)
  lines = run.metrics.read_bytes().splitlines(keepends=True)
  lines[1:1] = [garbage + b'\n', garbage + b'\n']
  run.metrics.write_bytes(b''.join(lines))
  # The last line is dropped for being late, which is no news.
  assert write_lines(run, (3,), said, after=2) == [1, 2, 3]
  aside = run.root / 'metrics.jsonl.damaged'
  assert said == [
    f'lines 2, 3 of {run.metrics} cannot be read; left out, and put aside in'
    f' {aside.name}.'
  ]
  assert aside.read_bytes() == 2 * (garbage + b'\n')


def test_lines_wait_where_the_disk_is_full(run, said, small_files):
  with metrics.MetricsWriter(run, say=said.append) as writer:
    writer.write(1, {'x': 1.0})
    with small_files(run.metrics.stat().st_size + 3):
      writer.write(2, {'x': 2.0})
      writer.write(3, {'x': 3.0})
      with pytest.raises(OSError, match='File too large'):
        writer.sync()
    assert metrics.read(run.root)['x'].tolist() == [1.0]
    writer.write(4, {'x': 4.0})
    writer.sync()
  assert metrics.read(run.root)['x'].tolist() == [1.0, 2.0, 3.0, 4.0]
  assert said == [
    'metrics cannot be written (File too large) and wait in memory.',
    'TensorBoard gets no more events (File too large).',
  ]


def test_events_hold_the_mean_over_finite_seeds(run, monkeypatch):
  events = []
  with metrics.MetricsWriter(run) as writer:
    assert list(run.tensorboard.iterdir())
    monkeypatch.setattr(writer._events, 'scalar', lambda *record: events.append(record))
    writer.write(7, {'r': jnp.array([1.0, 3.0, jnp.nan]), 'phase': 'x', 'bad': np.nan})
  assert events[0] == ('r', 2.0, 7)
  # Nobody has said what the rows are; of one that is not finite nothing is drawn.
  assert events[1:] == [('row_0/r', 1.0, 7), ('row_1/r', 3.0, 7)]


def test_events_of_rows_are_called_by_seed_and_flags(tmp_path, monkeypatch):
  rows = [run_dir.Row(100, {}), run_dir.Row(101, {'kl_beta': 0.3})]
  run = run_dir.create(str(tmp_path / 'r'), 'x', rows=rows)
  events = []
  with metrics.MetricsWriter(run) as writer:
    monkeypatch.setattr(writer._events, 'scalar', lambda *record: events.append(record))
    writer.write(7, {'r': jnp.array([1.0, 3.0])})
  assert events == [
    ('r', 2.0, 7),
    ('seed_100/r', 1.0, 7),
    ('seed_101-kl_beta_0.3/r', 3.0, 7),
  ]
