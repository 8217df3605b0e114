"""Working through jobs with processes that only pretend to train."""

import os
import platform
import signal
import subprocess
import sys
import threading
import time

import pytest

from rlfb_jax.sweeps import lock, runner
from rlfb_jax.sweeps.folder import JobFolder, State
from rlfb_jax.training import run_dir
from tests.sweeps.tiny import jobs_of

# Finishes, fails or waits as the folder's name says, holding the lock as a job does.
PRETEND = """
import contextlib, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
with contextlib.suppress(OSError):
  print('began', flush=True)
assert int(sys.argv[2]) == os.getppid()
if 'hidden_size=4-' in folder.name:
  raise ValueError('a reason')
if 'hidden_size=5-' in folder.name:
  (folder / 'error.txt').symlink_to('/dev/full')
  sys.exit('another reason')
if 'hidden_size=8-' in folder.name:
  os.kill(os.getpid(), signal.SIGKILL)
if 'hidden_size=16-' in folder.name:
  signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
  (folder / 'ready').touch()
  time.sleep(60)
(folder / 'finished.json').write_text('{"env_steps": 320, "seconds": 2.0}')
"""
COMMAND = (sys.executable, '-c', PRETEND)


def work(jobs, out, when_waiting=lambda: None):
  """Works through jobs; calls once when other processes are waited for."""
  said = []

  def say(text):
    said.append(text)
    if text.startswith('waits'):
      when_waiting()

  outcome = runner.work_through(
    jobs, out, COMMAND, say, poll_seconds=0.01, look_seconds=0.02
  )
  return outcome, said


def test_one_failing_job_stops_no_other_and_keeps_its_reason(tmp_path):
  jobs = jobs_of(ppo_hidden_size='4,8,32')
  outcome, said = work(jobs, tmp_path)
  names = [job.name for job in jobs]
  assert outcome.done == names[2:]
  assert outcome.failed == {
    names[0]: 'ValueError: a reason',
    names[1]: 'ended by SIGKILL; was there too little memory?',
  }
  folders = [JobFolder(tmp_path / name) for name in names]
  assert [f.state() for f in folders] == [State.FAILED, State.FAILED, State.DONE]
  error = folders[0].error.read_text()
  assert error.startswith(f'{names[0]}: exit code 1')
  assert error.endswith('ValueError: a reason\n')
  assert 'SIGKILL; was there too little memory?' in folders[1].error.read_text()
  assert any(line.startswith(f'[3/3] {names[2]} done in') for line in said)
  order = folders[2].read_order()
  assert order.rows == list(jobs[2].rows)
  assert tuple(order.arguments) == jobs[2].arguments


def test_a_full_disk_stops_no_other_job(tmp_path):
  jobs = jobs_of(ppo_hidden_size='5,32,64,128')
  silent, unlogged, unordered, fine = (JobFolder(tmp_path / job.name) for job in jobs)
  unlogged.root.mkdir()
  unlogged.log.symlink_to('/dev/full')
  unordered.root.mkdir()
  new = f'{unordered.order.name}.{os.getpid()}.{platform.node()}'
  unordered.order.with_name(new).symlink_to('/dev/full')
  outcome, said = work(jobs, tmp_path)
  assert outcome.done == [unlogged.root.name, fine.root.name]
  assert list(outcome.failed) == [silent.root.name, unordered.root.name]
  assert outcome.failed[silent.root.name] == 'another reason'
  why = outcome.failed[unordered.root.name]
  assert why.startswith('could not be started: [Errno 28] No space left on device')
  assert f'[1/4] {silent.root.name} failed (exit code 1)' in said
  assert f'[3/4] {unordered.root.name} {why}' in said


def test_a_second_start_does_what_is_missing_only(tmp_path):
  jobs = jobs_of(ppo_hidden_size='4,32')
  work(jobs, tmp_path)
  begun = JobFolder(tmp_path / jobs[1].name).log.read_text().count('began')
  outcome, _ = work(jobs, tmp_path)
  assert (len(outcome.done), len(outcome.failed)) == (1, 1)
  assert JobFolder(tmp_path / jobs[1].name).log.read_text().count('began') == begun
  assert JobFolder(tmp_path / jobs[0].name).log.read_text().count('began') == 2


def test_a_job_of_a_living_process_is_left_alone_until_it_is_let_go(tmp_path):
  jobs = jobs_of(ppo_hidden_size='32,64')
  folder, other = (JobFolder(tmp_path / job.name) for job in jobs)
  held = lock.acquire(folder.locks)
  assert folder.state() is State.RUNNING

  def release():
    assert not folder.log.exists()
    assert other.state() is State.DONE
    held.release()

  outcome, said = work(jobs, tmp_path, release)
  assert sorted(outcome.done) == sorted(job.name for job in jobs)
  assert outcome.failed == {}
  assert said[0] == f'[1/2] {jobs[0].name} is being run by another process'
  assert sum('another process' in line for line in said) == 1
  assert sum(line.startswith('waits for other processes') for line in said) == 1
  assert said[-1].startswith(f'[1/2] {jobs[0].name} done in')


def test_a_claim_of_a_container_that_is_gone_is_waited_for_and_taken_over(tmp_path):
  """A pod that comes back after ten seconds finds its own claim, but no process."""
  (job,) = jobs_of(ppo_hidden_size='32')
  folder = JobFolder(tmp_path / job.name)
  assert lock.acquire(folder.locks) is not None
  claim = folder.locks / '0'
  claim.write_text('{"world": "of another container", "pid": 1, "started": 7}')

  def grow_stale():
    os.utime(claim, (time.time() - 61, time.time() - 61))

  outcome, _ = work([job], tmp_path, grow_stale)
  assert outcome == runner.Outcome(done=[job.name], failed={})
  assert 'began' in folder.log.read_text()


def test_a_job_that_another_process_does_is_not_done_again(tmp_path):
  (job,) = jobs_of(ppo_hidden_size='32')
  folder = JobFolder(tmp_path / job.name)
  lock.acquire(folder.locks)

  def finish():
    run_dir.write_finished(run_dir.RunDir(folder.root), 1, 1.0)

  outcome, said = work([job], tmp_path, finish)
  assert outcome == runner.Outcome(done=[job.name], failed={})
  assert said[-1] == f'[1/1] {job.name} was done by another process; none left'
  assert not folder.log.exists()


def test_a_job_that_fails_in_another_process_is_not_tried_at_once_again(tmp_path):
  (job,) = jobs_of(ppo_hidden_size='32')
  folder = JobFolder(tmp_path / job.name)
  held = lock.acquire(folder.locks)

  def fail():
    folder.error.write_text('why')
    held.release()

  outcome, said = work([job], tmp_path, fail)
  assert outcome == runner.Outcome(done=[], failed={job.name: 'why'})
  assert 'failed in another process' in said[-1]
  assert not folder.log.exists()
  assert work([job], tmp_path)[0].done == [job.name]


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_who_waits_for_other_processes_can_be_asked_to_stop(tmp_path, number):
  (job,) = jobs_of(ppo_hidden_size='32')
  lock.acquire(JobFolder(tmp_path / job.name).locks)
  before = signal.getsignal(number)
  with pytest.raises(runner.Interrupted):
    work([job], tmp_path, lambda: os.kill(os.getpid(), number))
  assert signal.getsignal(number) is before


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_job_and_is_no_failure(tmp_path, number):
  jobs = jobs_of(ppo_hidden_size='16,32')
  folder = JobFolder(tmp_path / jobs[0].name)

  def end():
    deadline = time.monotonic() + 20
    while not (folder.root / 'ready').exists() and time.monotonic() < deadline:
      time.sleep(0.01)
    os.kill(os.getpid(), number)

  thread = threading.Thread(target=end)
  thread.start()
  before = signal.getsignal(number)
  with pytest.raises(runner.Interrupted):
    work(jobs, tmp_path)
  thread.join()
  assert signal.getsignal(number) is before
  assert not folder.error.exists()
  assert JobFolder(tmp_path / jobs[1].name).state() is State.MISSING


def test_states_of_a_folder(tmp_path):
  folder = JobFolder(tmp_path / 'job')
  assert folder.state() is State.MISSING
  run_dir.create(str(folder.root), 'job')
  assert folder.state() is State.STARTED
  folder.error.write_text('why')
  assert folder.state() is State.FAILED
  run_dir.write_finished(run_dir.RunDir(folder.root), 1, 1.0)
  assert folder.state() is State.DONE


def test_two_starts_that_write_the_same_order_do_not_meet(tmp_path, monkeypatch):
  monkeypatch.setattr(os, 'getpid', threading.get_ident)  # Threads stand for processes.
  (job,) = jobs_of(ppo_hidden_size='32')
  folder = JobFolder(tmp_path / job.name)
  threads = [threading.Thread(target=folder.write_order, args=(job,)) for _ in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert folder.read_order().rows == list(job.rows)
  assert subprocess.run(['ls', folder.root], capture_output=True, text=True).stdout == (
    'job.json\n'
  )
