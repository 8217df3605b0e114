"""Baselines take turns, and say why when they cannot."""

import importlib.util
import sys

import pytest
import workers
import workloads

BASELINE = """
import sys
sys.path.insert(0, {folder!r})
import turns
options = turns.parse('a baseline')
turn = turns.Turns(options.warmups, {{'env_steps': options.num_envs}})
print('a library talks')
count = 0
while True:
  count += 1
  if count == 5:
    raise RuntimeError('worn out')
  turn.end_iteration()
"""


@pytest.fixture
def script(tmp_path):
  folder = str(workers.ROOT / 'benchmarks' / 'baselines')
  path = tmp_path / 'baseline.py'
  path.write_text(BASELINE.format(folder=folder))
  return str(path)


def test_one_iteration_a_turn(script):
  command = [sys.executable, script, '--warmups=2', '--num_envs=4']
  with workers.Worker(command, timeout=60) as worker:
    assert worker.facts == {'env_steps': 4}
    # Two iterations warmed it up; the fifth fails.
    assert all(0 <= worker.iterate() < 10 for _ in range(2))
    with pytest.raises(workers.WorkerFailed, match='RuntimeError: worn out'):
      worker.iterate()


@pytest.mark.parametrize(
  ('command', 'said'),
  [
    ([sys.executable, '-c', 'import no_such_module'], 'no_such_module'),
    (['/no/such/python'], 'cannot be run'),
    ([sys.executable, '-c', 'import time; time.sleep(60)'], 'without a word'),
  ],
)
def test_a_baseline_that_cannot_start_says_why(command, said):
  with pytest.raises(workers.WorkerFailed, match=said):
    workers.Worker(command, timeout=1 if 'sleep' in command[-1] else 60)


def test_settings_of_baselines_are_ours():
  import turns

  from rlfb_jax.agents.ppo import PPOOptions

  ours = PPOOptions()
  assert {name: default for name, default, _ in turns.SETTINGS} == workloads.SIZES
  assert {name: getattr(ours, name) for name in workloads.SIZES} == workloads.SIZES
  assert ours.learning_rate == turns.LEARNING_RATE
  assert ours.discount == turns.DISCOUNT
  assert ours.gae_lambda == turns.GAE_LAMBDA
  assert ours.clip_range == turns.CLIP_RANGE
  assert ours.max_grad_norm == turns.MAX_GRAD_NORM
  assert ours.value_coefficient == turns.VALUE_COEFFICIENT


@pytest.mark.slow
@pytest.mark.parametrize(
  ('script', 'package'),
  [('brax_ppo.py', 'brax'), ('sb3_ppo.py', 'stable_baselines3')],
)
def test_the_real_ones(script, package):
  if importlib.util.find_spec(package) is None:
    pytest.skip(f'{package} is not installed')
  command = workers.command(
    sys.executable, script, 'walker_walk', workloads.TINY_SIZES, warmups=1
  )
  with workers.Worker(command, timeout=300) as worker:
    assert worker.facts['env_steps'] == 32
    assert worker.iterate() > 0
