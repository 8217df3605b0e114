"""The progress line: speed without compilation, time left, sparse in logs."""

import contextlib
import io
import sys

import numpy as np
import pytest

from rlfb_jax.training.progress import Progress, tell


class Clock:
  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


class Terminal(io.StringIO):
  def isatty(self):
    return True


def _progress(stream, **options):
  clock = Clock()
  return Progress(1000, stream=stream, clock=clock, **options), clock


def test_speed_leaves_the_first_chunk_out():
  stream = Terminal()
  progress, clock = _progress(stream, keys=('r',), label='rbrl', speed_factor=3)
  clock.now += 60  # Compilation and the first chunk.
  progress.update(100)
  assert stream.getvalue().endswith('rbrl  10%  100 steps  started in 1m00s')
  clock.now += 2
  progress.update(300, {'r': np.array([1.0, 2.0, np.nan]), 'other': 1})
  assert progress.steps_per_second() == 100.0
  line = stream.getvalue().rsplit('\r', 1)[1].rstrip()
  assert line == 'rbrl  30%  300 steps  300 steps/s  7s left  r 1.5'
  progress.close()
  assert stream.getvalue().endswith('\n')


def test_a_shorter_line_wipes_the_longer_one():
  stream = Terminal()
  progress, clock = _progress(stream, keys=('r',))
  progress.update(100, {'r': 123456.0})
  clock.now += 1
  first = stream.getvalue()
  progress.update(200, {})
  second = stream.getvalue()[len(first) :]
  assert len(second) >= len(first)


def test_a_log_gets_few_lines_and_always_the_last():
  stream = io.StringIO()
  progress, clock = _progress(stream, sparse_seconds=10)
  for step in range(10, 1001, 10):
    clock.now += 1
    progress.update(step)
  progress.close()
  lines = stream.getvalue().splitlines()
  assert len(lines) == 11
  assert all('\r' not in line for line in lines)
  assert lines[-1].startswith('100%  1k steps')
  assert lines[-1].endswith('0s left')


def test_speed_follows_the_last_chunks():
  progress, clock = _progress(io.StringIO())
  step = 0
  for seconds in [1.0] * 30 + [10.0] * 30:
    step += 10
    clock.now += seconds
    progress.update(step)
  assert progress.steps_per_second() == 1.0


def test_metrics_without_a_finite_seed_are_shown_as_nan():
  stream = io.StringIO()
  progress, _ = _progress(stream, keys=('r', 'absent'))
  progress.update(1, {'r': np.array([np.nan])})
  assert stream.getvalue().rstrip().endswith('r nan')
  assert 'absent' not in stream.getvalue()


@pytest.fixture
def full():
  # Closing tries to write once more.
  with contextlib.suppress(OSError), open('/dev/full', 'w', buffering=1) as stream:
    yield stream


@pytest.mark.parametrize('terminal', [False, True])
def test_a_full_disk_keeps_people_from_hearing_and_no_run_from_its_end(
  full, monkeypatch, terminal
):
  with pytest.raises(OSError, match='No space left'):
    print('text', file=full, flush=True)
  monkeypatch.setattr(full, 'isatty', lambda: terminal, raising=False)
  progress, clock = _progress(full)
  for steps in (500, 1000):
    clock.now += 20
    progress.update(steps)
  progress.close()
  monkeypatch.setattr(sys, 'stderr', full)
  tell('text')
