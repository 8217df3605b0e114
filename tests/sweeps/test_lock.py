"""Claims on jobs: one holder at a time, and dead ones are taken over."""

import os
import subprocess
import sys
import threading
import time

import pytest

from rlfb_jax.sweeps import lock

HOLD = """
import pathlib, sys, time
from rlfb_jax.sweeps import lock
assert lock.acquire(pathlib.Path(sys.argv[1])) is not None
print('held', flush=True)
time.sleep(60)
"""


def test_one_holder_until_it_is_released(tmp_path):
  folder = tmp_path / 'locks'
  assert not lock.is_held(folder)
  first = lock.acquire(folder)
  assert lock.is_held(folder)
  assert lock.acquire(folder) is None
  first.release()
  assert not lock.is_held(folder)
  assert lock.acquire(folder) is not None


def test_a_killed_process_holds_nothing(tmp_path):
  process = subprocess.Popen(
    [sys.executable, '-c', HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == 'held\n'
  assert lock.acquire(tmp_path) is None
  process.kill()
  # Not waited for yet: a process that is dead but still listed holds nothing either.
  deadline = time.monotonic() + 10
  while lock.is_held(tmp_path) and time.monotonic() < deadline:
    time.sleep(0.01)
  assert lock.acquire(tmp_path) is not None
  process.wait()
  process.stdout.close()


def test_on_another_machine_only_the_beat_counts(tmp_path, monkeypatch):
  held = lock.acquire(tmp_path)
  ours = lock._describe(os.getpid())
  monkeypatch.setattr(
    lock, '_describe', lambda pid: ours._replace(world='far', pid=pid)
  )
  assert lock.is_held(tmp_path)
  old = time.time() - 2 * lock.STALE_SECONDS
  os.utime(tmp_path / '0', (old, old))
  assert not lock.is_held(tmp_path)
  held.beat()
  assert lock.is_held(tmp_path)


def test_who_was_taken_over_learns_it_and_changes_nothing(tmp_path):
  first = lock.acquire(tmp_path)
  os.utime(tmp_path / '0', (1, 1))  # Asleep for long.
  second = lock.acquire(tmp_path)
  with pytest.raises(lock.Lost, match='taken over'):
    first.beat()
  first.release()
  assert lock.is_held(tmp_path)
  second.beat()


def test_the_loser_of_a_beat_is_told(tmp_path):
  first, told = lock.acquire(tmp_path), threading.Event()
  with lock.beating(first, told.set, beat_seconds=0.5):
    os.utime(tmp_path / '0', (1, 1))
    assert lock.acquire(tmp_path) is not None
    assert told.wait(30)


def test_a_beat_keeps_the_claim_alive(tmp_path):
  held = lock.acquire(tmp_path)
  os.utime(tmp_path / '0', (1, 1))
  with lock.beating(held, lambda: None, beat_seconds=0.01):
    deadline = time.monotonic() + 5
    while not lock.is_held(tmp_path) and time.monotonic() < deadline:
      time.sleep(0.01)
    assert lock.is_held(tmp_path)
  assert not lock.is_held(tmp_path)


def test_of_many_that_try_at_once_one_gets_a_dead_claim(tmp_path):
  """The race for a takeover, many times: never two holders, never none."""
  lock.acquire(tmp_path)
  for number in range(30):
    os.utime(tmp_path / str(number), (1, 1))
    start, got = threading.Barrier(6), []

    def attempt(start=start, got=got):
      start.wait()
      got.append(lock.acquire(tmp_path))

    threads = [threading.Thread(target=attempt) for _ in range(6)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert sum(claim is not None for claim in got) == 1
