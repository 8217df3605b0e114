"""Two processes as one run, and how a process learns that it is one of several."""

import os
import signal
import socket
import subprocess
import sys
import time

import jax
import kill_runs
import numpy as np
import pytest

from rlfb_jax.methods.device_options import DeviceOptions
from rlfb_jax.training import hosts, metrics, run_dir
from tests.training import spread_runs
from tests.training.test_placement import assert_same

VARIABLES = (
  'JAX_COORDINATOR_ADDRESS',
  'JAX_NUM_PROCESSES',
  'JAX_PROCESS_ID',
  'JOB_COMPLETION_INDEX',
)


@pytest.fixture
def asked(monkeypatch):
  """What `jax.distributed.initialize` was asked for."""
  calls = []

  def initialize(*args):
    calls.append(args)
    if args[0] is None:
      raise ValueError('coordinator_address should be defined.')

  for variable in VARIABLES:
    monkeypatch.delenv(variable, raising=False)
  monkeypatch.setattr(hosts, 'avoid_cpu_deadlock', lambda: None)
  monkeypatch.setattr(jax.distributed, 'initialize', initialize)
  return calls


def test_alone_by_default(asked):
  hosts.connect(DeviceOptions())
  assert asked == []
  assert hosts.is_first()
  assert [hosts.anywhere(flag) for flag in (False, True)] == [False, True]
  assert [hosts.as_first(flag) for flag in (False, True)] == [False, True]
  assert hosts.text_of_first('runs/a') == 'runs/a'


def test_flags_win_over_variables(asked, monkeypatch):
  monkeypatch.setenv('JAX_NUM_PROCESSES', '4')
  monkeypatch.setenv('JOB_COMPLETION_INDEX', '3')
  monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', 'job-0.svc:1234')
  hosts.connect(DeviceOptions(coordinator_address='auto'))
  hosts.connect(DeviceOptions(coordinator_address='a:1', process_id=1))
  # Left to JAX, which knows Slurm and others.
  for variable in VARIABLES:
    monkeypatch.delenv(variable, raising=False)
  hosts.connect(DeviceOptions(coordinator_address='a:1'))
  assert asked == [('job-0.svc:1234', 4, 3), ('a:1', 4, 1), ('a:1', None, None)]


def test_a_second_run_of_a_process_stays_among_its_hosts(asked, monkeypatch):
  monkeypatch.setattr(jax.distributed, 'is_initialized', lambda: True)
  hosts.connect(DeviceOptions(coordinator_address='a:1', num_processes=2, process_id=0))
  assert asked == []
  with pytest.raises(ValueError, match='no port'):
    hosts.connect(DeviceOptions(coordinator_address='a'))


@pytest.mark.parametrize(
  ('options', 'needed'),
  [
    ({}, False),
    ({'mesh': 'seed:8'}, False),
    ({'mesh': 'seed:4,data:2'}, True),
    ({'coordinator_address': 'a:1', 'num_processes': 2, 'process_id': 0}, False),
    ({'coordinator_address': 'a:1', 'mesh': 'data:2'}, True),
  ],
)
def test_devices_that_speak_do_so_in_one_order(asked, monkeypatch, options, needed):
  calls = []
  monkeypatch.setattr(hosts, 'avoid_cpu_deadlock', lambda: calls.append(True))
  hosts.connect(DeviceOptions(**options))
  assert bool(calls) == needed


@pytest.mark.parametrize(
  ('options', 'said'),
  [
    ({'num_processes': 2}, 'need --coordinator_address'),
    ({'coordinator_address': 'node1'}, r'no port; try node1:12321\.'),
    ({'coordinator_address': 'auto'}, r'no cluster was found.*HOST:PORT'),
    (
      {'coordinator_address': 'a:1', 'num_processes': 2, 'process_id': 2},
      r'--process_id=2 must be less than --num_processes=2.*try 1\.',
    ),
  ],
)
def test_refusals_name_what_works(asked, options, said):
  with pytest.raises(ValueError, match=said):
    hosts.connect(DeviceOptions(**options))


def test_a_variable_that_is_no_number(asked, monkeypatch):
  monkeypatch.setenv('JAX_PROCESS_ID', 'one')
  with pytest.raises(ValueError, match='JAX_PROCESS_ID=one must be a whole number'):
    hosts.connect(DeviceOptions(coordinator_address='a:1', num_processes=2))


def test_whole_reads_keys_as_numbers():
  whole = hosts.whole({'key': jax.random.key(3), 'x': np.arange(2.0)})
  np.testing.assert_array_equal(whole['key'], jax.random.key_data(jax.random.key(3)))
  np.testing.assert_array_equal(whole['x'], [0, 1])


@pytest.mark.parametrize(
  ('method', 'task', 'meshes'),
  [
    ('ppo', 'cartpole_swingup', ('seed:2', 'data:2')),
    ('ppo', 'probe_choice', ('seed:2',)),
    pytest.param('mrn', 'probe_choice', ('seed:2',), marks=pytest.mark.slow),
  ],
)
def test_two_processes_compute_what_one_does(tmp_path, method, task, meshes):
  spread_runs.finish(
    spread_runs.start(tmp_path, method, task, spread_runs.ONE, devices=1)
  )
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'--coordinator_address=localhost:{free.getsockname()[1]}'
  spread_runs.finish(
    *(
      spread_runs.start(
        tmp_path,
        method,
        task,
        *meshes,
        devices=1,
        flags=(address, f'--process_id={process}'),
      )
      for process in range(2)
    )
  )
  for mesh in meshes:
    assert_same(tmp_path, mesh)


TINY = (
  *('--task=probe_choice', '--method=rbrl', '--num_seeds=2', '--total_env_steps=16000'),
  *('--ppo_num_envs=8', '--ppo_rollout_steps=20', '--ppo_minibatch_size=160'),
  *('--ppo_num_epochs=1', '--ppo_hidden_size=4', '--ppo_hidden_layers=1'),
  *('--feedback_segment_steps=4', '--feedback_pretrain_steps=160'),
  *('--feedback_session_interval=1600', '--reward_hidden_size=4', '--kl_batch=16'),
  *('--rating_max_return=4', '--tensorboard=false', '--checkpoint_minutes=0.02'),
  '--eval_episodes=2',
)


def start_both(folder):
  """`rlfb-train --resume` on two hosts of one device each."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'--coordinator_address=localhost:{free.getsockname()[1]}'
  command = [sys.executable, '-m', 'rlfb_jax.bin.train', *TINY, '--resume', address]
  command += ['--num_processes=2', f'--run_dir={folder}']
  env = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''}
  return [
    subprocess.Popen(
      [*command, f'--process_id={i}'], env=env, stderr=subprocess.PIPE, text=True
    )
    for i in range(2)
  ]


def assert_same_run(one, other):
  compared = kill_runs.compare(one, other)
  assert compared['bits'] > 0
  differing = {name: n for name, n in compared.items() if name not in ('lines', 'bits')}
  assert not any(differing.values()), differing


@pytest.mark.slow
def test_a_signal_to_one_host_saves_and_stops_all_and_both_go_on(tmp_path):
  folder, quiet = tmp_path / 'run', tmp_path / 'quiet'
  spread_runs.finish(*start_both(quiet))
  both = start_both(folder)
  try:
    deadline = time.monotonic() + 300
    while max(kill_runs.saves(folder)[0], default=0) < 1600:
      assert time.monotonic() < deadline
      time.sleep(0.1)
    both[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [143, 143], said
    assert 'resume goes on from step' in said[0]
    steps = metrics.read(folder)['env_steps'][-1]
    assert 0 < steps < 16_000
    both = start_both(folder)
    said = [process.communicate(timeout=300)[1] for process in both]
  finally:
    for process in both:
      process.kill()
  assert [process.returncode for process in both] == [0, 0], said
  lines = metrics.read(folder)['env_steps']
  np.testing.assert_array_equal(lines, np.unique(lines))
  assert lines[-1] == 16_000
  assert_same_run(quiet, folder)
  assert run_dir.read_finished(run_dir.RunDir(folder))['env_steps'] == 16_000
