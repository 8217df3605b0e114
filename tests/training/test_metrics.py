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
  run.metrics.write_text('broken\n{"env_steps": 3}\n')
  with pytest.raises(ValueError, match='line 1 is not JSON'):
    metrics.read(run.root)


def test_a_second_writer_appends(run):
  for step in (1, 2):
    with metrics.MetricsWriter(run, tensorboard=False) as writer:
      writer.write(step, {})
  np.testing.assert_array_equal(metrics.read(run.root)['env_steps'], [1, 2])


def test_events_hold_the_mean_over_finite_seeds(run, monkeypatch):
  events = []
  with metrics.MetricsWriter(run) as writer:
    assert list(run.tensorboard.iterdir())
    monkeypatch.setattr(
      writer._events, 'add_scalar', lambda *record: events.append(record)
    )
    writer.write(7, {'r': jnp.array([1.0, 3.0, jnp.nan]), 'phase': 'x', 'bad': np.nan})
  assert events[0] == ('r', 2.0, 7)
  assert events[1:3] == [('seed_0/r', 1.0, 7), ('seed_1/r', 3.0, 7)]
  assert {name for name, _, _ in events} == {'r', *(f'seed_{i}/r' for i in range(3))}
