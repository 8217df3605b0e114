"""A sweep that is killed gives the bits of one that is not."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_killed_sweep_is_finished_by_later_starts_and_shards_to_the_same_bits():
  done = subprocess.run(
    [sys.executable, str(ROOT / 'experiments' / 'kill_sweep.py'), '--kills=2'],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
    timeout=580,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert done.stdout.count('SIGKILL at line') == 2
  assert done.stdout.count('| nothing |') == 4
