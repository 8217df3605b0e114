"""Two processes as one run, and how a process learns that it is one of several."""

import socket

import jax
import numpy as np
import pytest

from rlfb_jax.methods.device_options import DeviceOptions
from rlfb_jax.training import hosts
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
