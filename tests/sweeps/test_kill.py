"""A sweep that is killed gives the bits of one that is not."""

import os
import pathlib
import subprocess
import sys

import kill_sweep
import numpy as np
import pytest

from rlfb_jax.training import export

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _leave(folder, **changes):
  """A finished job, with a policy that differs in `changes`."""
  (folder / 'report').mkdir(parents=True)
  (folder / 'metrics.jsonl').write_text('{"env_steps": 1, "x": [1.0]}\n')
  (folder / 'report' / 'evaluation.json').write_text('{}')
  (folder / 'rows.json').write_text('[]')
  arrays = {
    'mean': np.zeros((1, 2), np.float32),
    'scale': np.ones((1, 2), np.float32),
    'layers': ((np.zeros((1, 2, 1), np.float32), np.zeros((1, 1), np.float32)),),
  }
  policy = export.Policy(task='x', clip=1.0, **{**arrays, **changes})
  export.save(folder / 'policy', policy)
  return folder


@pytest.mark.parametrize(
  'change',
  [
    {'mean': np.ones((1, 2), np.float32)},
    {'scale': 2 * np.ones((1, 2), np.float32)},
    {'layers': ((np.ones((1, 2, 1), np.float32), np.zeros((1, 1), np.float32)),)},
  ],
)
def test_every_array_of_a_policy_is_compared(tmp_path, change):
  same, other = _leave(tmp_path / 'same'), _leave(tmp_path / 'other', **change)
  assert kill_sweep.differing(_leave(tmp_path / 'a'), same) == []
  assert kill_sweep.differing(same, other) == ['policy']


@pytest.mark.slow
def test_a_killed_sweep_is_finished_by_later_starts_and_shards_to_the_same_bits():
  script = str(ROOT / 'experiments' / 'kill_sweep.py')
  done = subprocess.run(
    [sys.executable, script, '--kills=2', '--env_steps=6400'],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
    timeout=580,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert done.stdout.count('SIGKILL at line') == 2
  assert done.stdout.count('| nothing |') == 4
