"""Working through jobs with processes that only pretend to train."""

import os
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
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
print('began', flush=True)
assert int(sys.argv[2]) == os.getppid()
if 'hidden_size=4-' in folder.name:
  raise ValueError('a reason')
if 'hidden_size=8-' in folder.name:
  os.kill(os.getpid(), signal.SIGKILL)
if 'hidden_size=16-' in folder.name:
  signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
  (folder / 'ready').touch()
  time.sleep(60)
(folder / 'finished.json').write_text('{"env_steps": 320, "seconds": 2.0}')
"""
COMMAND = (sys.executable, '-c', PRETEND)


def work(jobs, out):
  said = []
  outcome = runner.work_through(jobs, out, COMMAND, said.append, poll_seconds=0.01)
  return outcome, said


def test_one_failing_job_stops_no_other_and_keeps_its_reason(tmp_path):
  jobs = jobs_of(ppo_hidden_size='4,8,32')
  outcome, said = work(jobs, tmp_path)
  names = [job.name for job in jobs]
  assert outcome == runner.Outcome(done=names[2:], failed=names[:2], elsewhere=[])
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


def test_a_second_start_does_what_is_missing_only(tmp_path):
  jobs = jobs_of(ppo_hidden_size='4,32')
  work(jobs, tmp_path)
  begun = JobFolder(tmp_path / jobs[1].name).log.read_text().count('began')
  outcome, _ = work(jobs, tmp_path)
  assert (len(outcome.done), len(outcome.failed)) == (1, 1)
  assert JobFolder(tmp_path / jobs[1].name).log.read_text().count('began') == begun
  assert JobFolder(tmp_path / jobs[0].name).log.read_text().count('began') == 2


def test_a_job_of_a_living_process_is_left_alone(tmp_path):
  jobs = jobs_of(ppo_hidden_size='32')
  folder = JobFolder(tmp_path / jobs[0].name)
  held = lock.acquire(folder.locks)
  assert folder.state() is State.RUNNING
  outcome, said = work(jobs, tmp_path)
  assert outcome.elsewhere == [jobs[0].name]
  assert not folder.log.exists()
  assert 'another process' in said[0]
  held.release()
  assert work(jobs, tmp_path)[0].done == [jobs[0].name]


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


def test_two_starts_that_write_the_same_order_do_not_meet(tmp_path):
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
