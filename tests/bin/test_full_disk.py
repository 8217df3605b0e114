"""rlfb-train on a disk that is full from some step on."""

import os
import subprocess
import sys

import kill_runs
import pytest

from rlfb_jax.bin import train
from rlfb_jax.training import run_dir

# The last rewards are random numbers in one array of 128 KiB: no compression and no way
# of spreading arrays over files makes a checkpoint of files as small as the others.
NUM_ENVS, CHUNK = 16_384, 163_840
FLAGS = (
  '--task=probe_choice',
  '--method=ppo',
  '--num_seeds=2',
  f'--total_env_steps={4 * CHUNK}',
  f'--ppo_num_envs={NUM_ENVS}',
  '--ppo_rollout_steps=10',
  f'--ppo_minibatch_size={CHUNK}',
  '--ppo_num_epochs=1',
  '--ppo_hidden_size=4',
  '--ppo_hidden_layers=1',
  '--eval_episodes=2',
  f'--checkpoint_interval={CHUNK}',
  '--checkpoint_minutes=none',
  '--checkpoints_kept=9',
)
NO_CHECKPOINT, NOTHING = 20_000, 100

# `rlfb-train` whose files stay small from its third chunk on, and who is asked to stop
# there.
CHILD = """
import os, resource, signal, sys
from rlfb_jax.bin import train
from rlfb_jax.training.checkpoint import Checkpoints

largest, stop, position, *argv = sys.argv[1:]
save = Checkpoints.save

def save_and_fill(self, state, clock):
  if clock.position == (int(position), 0):
    self.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest), resource.RLIM_INFINITY))
    if stop == 'stop':
      os.kill(os.getpid(), signal.SIGTERM)
  save(self, state, clock)

Checkpoints.save = save_and_fill
train.main(argv)
"""


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run that had room."""
  folder = tmp_path_factory.mktemp('runs') / 'whole'
  train.main([*FLAGS, f'--run_dir={folder}'])
  return folder


def child(folder, largest, stop):
  command = [sys.executable, '-c', CHILD, str(largest), stop, str(3 * CHUNK), *FLAGS]
  return subprocess.run(
    [*command, f'--run_dir={folder}'],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_ENABLE_COMPILATION_CACHE': '0'},
    capture_output=True,
    text=True,
    timeout=300,
  )


def same(a, b):
  compared = kill_runs.compare(a, b)
  assert compared['lines'] == 4
  return all(name in ('lines', 'bits') or not compared[name] for name in compared)


def test_who_is_stopped_reads_what_is_saved_and_goes_on_from_there(whole, tmp_path):
  folder = tmp_path / 'run'
  ended = child(folder, NO_CHECKPOINT, 'stop')
  assert ended.returncode == 143, ended.stderr
  assert 'Traceback' not in ended.stderr
  assert f'checkpoint {3 * CHUNK} could not be written (File too' in ended.stderr
  assert (
    f'--run_dir={folder} --resume goes on from step {2 * CHUNK:,}\n' in ended.stderr
  )
  done, writing = kill_runs.saves(folder)
  assert (sorted(done), writing) == ([CHUNK, 2 * CHUNK], False)
  train.main([f'--run_dir={folder}', '--resume'])
  assert same(whole, folder)


def test_a_run_comes_to_its_end_without_checkpoints(whole, tmp_path):
  folder = tmp_path / 'run'
  ended = child(folder, NO_CHECKPOINT, 'go on')
  assert ended.returncode == 0, ended.stderr
  assert 'Traceback' not in ended.stderr
  assert f'checkpoint {4 * CHUNK} could not be written (File too' in ended.stderr
  assert run_dir.read_finished(run_dir.RunDir(folder))['env_steps'] == 4 * CHUNK
  for name in ('policy.json', 'policy.npz'):
    ours, theirs = (path / 'policy' / name for path in (folder, whole))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_run_whose_lines_have_no_room_is_not_complete(whole, tmp_path):
  folder = tmp_path / 'run'
  ended = child(folder, NOTHING, 'go on')
  assert ended.returncode == 1, ended.stderr
  assert 'Traceback' not in ended.stderr
  for sentence in (
    'metrics cannot be written (File too large) and wait in memory',
    'TensorBoard gets no more events (File too large)',
    f'File too large; not complete, --run_dir={folder} --resume goes on from what',
  ):
    assert ended.stderr.count(sentence) == 1, ended.stderr
  assert len((folder / 'metrics.jsonl').read_bytes().splitlines()) == 3
  train.main([f'--run_dir={folder}', '--resume'])
  assert same(whole, folder)
