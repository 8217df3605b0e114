"""rlfb-train --resume: signals, kills, flags."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import kill_runs
import numpy as np
import pytest

from rlfb_jax.bin import launch, train
from rlfb_jax.training import export, files, metrics, run_dir
from rlfb_jax.training.run import make_environment, plain_rows, train_run

TINY = (
  '--task=probe_observed',
  '--method=ppo',
  '--num_seeds=2',
  '--total_env_steps=128',
  '--ppo_num_envs=4',
  '--ppo_rollout_steps=8',
  '--ppo_minibatch_size=16',
  '--ppo_num_epochs=1',
  '--ppo_hidden_size=4',
  '--ppo_hidden_layers=1',
  '--eval_episodes=3',
  '--checkpoint_interval=32',
  '--checkpoint_minutes=none',
  '--checkpoints_kept=9',
  '--tensorboard=false',
)
# A chunk takes a moment, and there are more of them than anybody waits for.
ENDLESS = (
  *('--task=cartpole_balance', '--engine=native', '--method=ppo', '--num_seeds=1'),
  *('--total_env_steps=400000000', '--ppo_num_envs=4', '--ppo_rollout_steps=1000'),
  *('--ppo_num_epochs=1', '--ppo_minibatch_size=4000', '--ppo_hidden_size=4'),
  *('--ppo_hidden_layers=1', '--eval_episodes=0', '--tensorboard=false'),
)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run that went through, with a checkpoint after every chunk."""
  folder = tmp_path_factory.mktemp('runs') / 'whole'
  train.main([*TINY, f'--run_dir={folder}'])
  return folder


@pytest.fixture
def cut(whole, tmp_path):
  """The same as if it had been killed in its third chunk."""
  folder = tmp_path / 'cut'
  shutil.copytree(whole, folder)
  (folder / 'finished.json').unlink()
  shutil.rmtree(folder / 'report')
  for step in (96, 128):
    shutil.rmtree(folder / 'checkpoints' / str(step))
  with open(folder / 'metrics.jsonl', 'r+') as file:
    lines = file.readlines()
    file.seek(0)
    file.truncate()
    file.write(''.join(lines[:3]) + lines[3][:20])
  return folder


def test_a_resumed_run_leaves_the_same_files(whole, cut, capsys):
  train.main([f'--run_dir={cut}', '--resume'])
  assert 'goes on from step 64' in capsys.readouterr().err
  compared = kill_runs.compare(whole, cut)
  assert compared['lines'] == 4
  assert compared['bits'] > 0
  for name in compared:
    assert name in ('lines', 'bits') or not compared[name], name
  assert (cut / 'flags.txt').read_text() == (whole / 'flags.txt').read_text()
  sessions = json.loads((cut / 'manifest.json').read_text())['sessions']
  assert [session['env_steps'] for session in sessions] == [0, 64]
  assert sessions[1]['versions']['jax']


def test_the_clock_of_a_run_counts_all_of_its_sessions(whole, cut):
  before = metrics.read(cut)['wall_seconds'][1]
  train.main([f'--run_dir={cut}', '--resume'])
  seconds = metrics.read(cut)['wall_seconds']
  assert np.all(np.diff(seconds) >= 0)
  assert seconds[2] > before
  complete = run_dir.read_finished(run_dir.RunDir(cut))
  assert complete['env_steps'] == 128
  assert complete['seconds'] >= seconds[-1]


def test_a_complete_run_is_left_alone(whole, capsys):
  before = {p: p.stat().st_mtime_ns for p in whole.rglob('*')}
  train.main([*TINY, f'--run_dir={whole}', '--resume'])
  assert 'is complete: 128 steps; nothing to do.' in capsys.readouterr().err
  assert {p: p.stat().st_mtime_ns for p in whole.rglob('*')} == before


@pytest.mark.parametrize(
  ('flag', 'sentence'),
  [
    ('--ppo_clip_range=0.5', '--ppo_clip_range=0.5 is not what'),
    ('--total_env_steps=256', 'leave it at --total_env_steps=128'),
    ('--seed=7', 'leave it at --seed=0'),
    ('--method=rbrl', 'leave it at --method=ppo'),
  ],
)
def test_other_flags_are_named_with_both_values(cut, capsys, flag, sentence):
  before = (cut / 'metrics.jsonl').read_bytes()
  with pytest.raises(SystemExit) as caught:
    train.main([f'--run_dir={cut}', '--resume', flag])
  assert caught.value.code == 1
  assert sentence in capsys.readouterr().err
  assert (cut / 'metrics.jsonl').read_bytes() == before


def test_other_rows_are_refused(cut):
  config = launch.parse([f'--run_dir={cut}', '--resume'])
  env = make_environment(config)
  rows = [run_dir.Row(0, {}), run_dir.Row(0, {'ppo_learning_rate': 1e-3})]
  with pytest.raises(ValueError, match=r'row 1 of .* is seed 1'):
    launch.start_or_resume(config, env, rows)
  with pytest.raises(ValueError, match='holds 2 rows, not 1'):
    launch.start_or_resume(config, env, plain_rows(config)[:1])


def test_flags_that_change_no_bit_may_differ(whole, cut, capsys):
  free = ('--checkpoint_minutes=none', '--checkpoint_interval=0', '--num_threads=1')
  train.main([f'--run_dir={cut}', '--resume', *free])
  assert (cut / 'finished.json').is_file()
  # Nothing more is saved; what was saved before counts nevertheless.
  assert 'goes on from step 64' in capsys.readouterr().err
  sessions = json.loads((cut / 'manifest.json').read_text())['sessions']
  assert [session['env_steps'] for session in sessions] == [0, 64]
  assert max(kill_runs.saves(cut)[0]) == 64
  ours, theirs = metrics.read(cut), metrics.read(whole)
  assert len(ours['env_steps']) == 4
  np.testing.assert_array_equal(ours['policy_loss'], theirs['policy_loss'])


def test_another_mesh_is_taken_and_told(cut):
  config = launch.parse([f'--run_dir={cut}', '--resume', '--mesh=seed:1'])
  rows = plain_rows(config)
  (trace,) = launch.check_same(config, rows, run_dir.RunDir(cut))
  assert '--mesh=seed:1 was --mesh= before' in trace


def test_another_precision_is_another_run(cut):
  flag = '--matmul_precision=tensorfloat32'
  config = launch.parse([f'--run_dir={cut}', '--resume', flag])
  with pytest.raises(ValueError, match='leave it at --matmul_precision=float32'):
    launch.check_same(config, plain_rows(config), run_dir.RunDir(cut))


def test_a_mesh_that_does_not_fit_is_one_sentence(cut, capsys):
  with pytest.raises(SystemExit) as caught:
    train.main([f'--run_dir={cut}', '--resume', '--mesh=seed:99'])
  assert caught.value.code == 1
  assert 'takes 99 devices, of which there are' in capsys.readouterr().err


def test_another_state_is_one_sentence(cut, capsys):
  path = cut / 'flags.txt'
  text = path.read_text()
  path.write_text(text.replace('--ppo_hidden_size=4', '--ppo_hidden_size=5'))
  with pytest.raises(SystemExit) as caught:
    train.main([f'--run_dir={cut}', '--resume'])
  assert caught.value.code == 1
  assert 'is of another state: .agent.params' in capsys.readouterr().err


def test_resume_needs_a_folder_and_starts_what_is_not_there(tmp_path, capsys):
  with pytest.raises(SystemExit):
    train.main([*TINY, '--resume'])
  assert '--resume needs --run_dir=FOLDER' in capsys.readouterr().err
  assert launch.parse([*TINY, '--resume', f'--run_dir={tmp_path / "a"}']).run.resume


@pytest.fixture
def in_use(cut):
  """The run that was cut, as if another process worked on it."""
  with open(cut / 'lock', 'ab') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield cut


def test_a_run_in_use_is_refused_and_left_as_it_is(in_use, capsys):
  unfinished = in_use / 'checkpoints' / '96.orbax-checkpoint-tmp'
  unfinished.mkdir()
  before = (in_use / 'metrics.jsonl').read_bytes()
  with pytest.raises(SystemExit) as caught:
    train.main([f'--run_dir={in_use}', '--resume'])
  assert caught.value.code == 1
  said = capsys.readouterr().err
  assert 'Traceback' not in said
  assert said.splitlines()[-1] == (
    f'rlfb-train: --run_dir={in_use} is in use by another process; wait until it has'
    ' ended, or name another folder.'
  )
  assert unfinished.is_dir()
  assert (in_use / 'metrics.jsonl').read_bytes() == before


def test_a_run_is_locked_while_it_is_trained_and_no_longer(cut, monkeypatch):
  def is_locked():
    with open(cut / 'lock', 'ab') as lock:
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        return True
    return False

  seen = []
  finish = run_dir.write_finished
  monkeypatch.setattr(
    run_dir, 'write_finished', lambda *args: (seen.append(is_locked()), finish(*args))
  )
  train.main([f'--run_dir={cut}', '--resume'])
  assert seen == [True]
  assert not is_locked()


def test_a_file_system_without_locks_keeps_nobody_off(in_use, monkeypatch):
  def no_locks(file, how):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(files.fcntl, 'flock', no_locks)
  train.main([f'--run_dir={in_use}', '--resume'])
  assert (in_use / 'finished.json').is_file()


def test_the_claim_on_a_job_counts_more_than_a_lock(in_use, capsys):
  config = launch.parse([f'--run_dir={in_use}', '--resume'])
  run = run_dir.RunDir(in_use)
  train_run(config, make_environment(config), run, claimed=True)
  assert run_dir.read_finished(run) is not None
  assert f'{in_use} is locked by another process; goes on' in capsys.readouterr().err


def test_garbage_among_the_metrics_is_left_out_and_named(whole, cut, capsys):
  path = cut / 'metrics.jsonl'
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b''.join([lines[0], b'\xff{"env_st\n', *lines[1:]]))
  train.main([f'--run_dir={cut}', '--resume'])
  assert f'line 2 of {path} cannot be read' in capsys.readouterr().err
  compared = kill_runs.compare(whole, cut)
  assert (compared['lines'], compared['differing_lines']) == (4, 0)


def test_an_unfinished_run_has_a_policy(cut):
  assert export.load_policy(cut).num_seeds == 2


def test_tensorboard_continues_without_duplicates(tmp_path):
  event_file = pytest.importorskip('tensorboardX.event_file_writer')
  assert event_file
  from tensorboardX.proto import event_pb2
  from tensorboardX.record_writer import struct

  run = run_dir.create(str(tmp_path / 'r'), 'x')
  for after, steps in ((0, (1, 2, 3)), (2, (3, 4))):
    with metrics.MetricsWriter(run, after=after) as writer:
      for step in steps:
        writer.write(step, {'x': float(step)})
  np.testing.assert_array_equal(metrics.read(run.root)['env_steps'], [1, 2, 3, 4])
  files = sorted(run.tensorboard.iterdir(), key=lambda p: p.suffix)
  assert len(files) == 2

  def events(path):
    data, at = path.read_bytes(), 0
    while at < len(data):
      (length,) = struct.unpack('<Q', data[at : at + 8])
      yield event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
      at += 16 + length

  # TensorBoard drops what earlier files say from this step on.
  starts = [e.step for e in events(files[1]) if e.HasField('session_log')]
  assert starts == [3]


@contextlib.contextmanager
def running(folder, *flags):
  """A training process whose first checkpoint is there."""
  command = [
    *(sys.executable, '-m', 'rlfb_jax.bin.train', f'--run_dir={folder}', '--resume'),
    *flags,
  ]
  environ = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  with subprocess.Popen(
    command, env=environ, stderr=subprocess.PIPE, text=True
  ) as process:
    try:
      deadline = time.monotonic() + 120
      while time.monotonic() < deadline and not kill_runs.saves(folder)[0]:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
      yield process
    finally:
      process.kill()


@pytest.mark.parametrize(
  ('number', 'code'),
  [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGINT, 130)],
)
def test_a_signal_saves_and_ends_the_run_within_seconds(tmp_path, number, code):
  folder = tmp_path / 'run'
  with running(folder, *ENDLESS, '--checkpoint_interval=4000') as process:
    # A save of its own: the next regular one is far away.
    process.send_signal(number)
    start = time.monotonic()
    _, error = process.communicate(timeout=60)
  assert time.monotonic() - start < 20
  assert process.returncode == code, error
  assert f'--run_dir={folder} --resume goes on from step ' in error
  assert 'Traceback' not in error
  step = int(error.rpartition('from step ')[2].replace(',', ''))
  # A chunk may be done beyond it, whose line the next process writes.
  assert kill_runs.last_line(folder) == step
  assert max(kill_runs.saves(folder)[0]) - step in (0, 1)
  assert not kill_runs.saves(folder)[1]
  assert not (folder / 'finished.json').exists()


def test_a_program_that_takes_too_long_is_left_at_what_was_saved_before_it(tmp_path):
  folder = tmp_path / 'run'
  # Seconds a chunk, each saved because it is longer than a stop may take.
  flags = (*ENDLESS, '--ppo_num_epochs=500', '--stop_seconds=0.2')
  with running(folder, *flags) as process:
    saved = max(kill_runs.saves(folder)[0])
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
  assert process.returncode == 143, error
  assert 'did not wait for the running program' in error
  assert '--stop_seconds=0.2' in error
  step = f'{saved:,}'
  assert f'--run_dir={folder} --resume goes on from step {step}' in error
  assert 'Traceback' not in error
  assert max(kill_runs.saves(folder)[0]) == saved
  assert not kill_runs.saves(folder)[1]


@pytest.mark.slow
def test_kills_at_random_moments_change_no_bit(tmp_path):
  flags = (
    *('--task=cartpole_swingup', '--engine=native', '--method=rbrl_kl'),
    *('--num_seeds=2', '--total_env_steps=64000', '--ppo_num_envs=4'),
    *('--ppo_rollout_steps=250', '--ppo_minibatch_size=1000', '--ppo_num_epochs=1'),
    *('--ppo_hidden_size=8', '--ppo_hidden_layers=1', '--reward_hidden_size=8'),
    *('--feedback_pretrain_steps=0', '--feedback_session_interval=4000'),
    *('--feedback_labels_per_session=20', '--feedback_label_budget=320'),
    *('--kl_batch=64', '--eval_episodes=2', '--tensorboard=false'),
    '--checkpoint_minutes=0',
  )
  quiet, killed = tmp_path / 'quiet', tmp_path / 'killed'
  train.main([*flags, f'--run_dir={quiet}'])
  deaths = kill_runs.torment(killed, flags, kills=10)
  assert len(deaths) >= 5
  assert {death.where for death in deaths} >= set(kill_runs.PLACES.values())
  # What was saved is where the next one went on.
  assert all(death.resumed == death.saved for death in deaths)
  compared = kill_runs.compare(quiet, killed)
  for name in compared:
    assert name in ('lines', 'bits') or not compared[name], name
