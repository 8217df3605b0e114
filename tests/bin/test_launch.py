"""Training from Python is the run that the command line makes."""

import json

import numpy as np
import pytest

import rlfb_jax
from rlfb_jax import envs
from rlfb_jax.bin import evaluate, train
from rlfb_jax.envs.probe import PROBES, ProbeEnvironment
from rlfb_jax.training import metrics
from tests.bin.test_train import CLOCKS, TINY
from tests.envs.test_adapter import toy


def files_of(folder):
  return {p: p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()}


def test_it_is_the_command_and_a_complete_run_is_only_read(tmp_path):
  folder, other = tmp_path / 'python', tmp_path / 'command'
  run, trained = rlfb_jax.train([*TINY, f'--run_dir={folder}'])
  assert run.root == folder
  assert trained.evaluation.returns.shape == (2, 3)
  train.main([*TINY, f'--run_dir={other}'])
  found, theirs = metrics.read(folder), metrics.read(other)
  for name in set(found) - set(CLOCKS):
    np.testing.assert_array_equal(found[name], theirs[name], err_msg=name)

  with pytest.raises(ValueError, match='holds a run already'):
    rlfb_jax.train([*TINY, f'--run_dir={folder}'])
  before = files_of(folder)
  run, again = rlfb_jax.train([f'--run_dir={folder}', '--resume'])
  assert files_of(folder) == before
  assert run.root == folder
  assert again.state is None
  assert again.policy is None
  np.testing.assert_array_equal(again.evaluation.returns, trained.evaluation.returns)
  assert again.seconds == pytest.approx(trained.seconds, abs=1e-3)
  assert rlfb_jax.load_policy(run.root).num_seeds == 2


def test_critics_errors_of_a_complete_run_are_read_too(tmp_path):
  argv = [
    '--task=probe_observed',
    '--method=ddpg',
    '--total_env_steps=64',
    '--replay_num_envs=4',
    '--replay_random_steps=32',
    '--replay_chunk_steps=32',
    '--ddpg_hidden_size=4',
    '--ddpg_batch_size=8',
    '--eval_episodes=3',
    '--tensorboard=false',
    f'--run_dir={tmp_path / "run"}',
    '--resume',
  ]
  errors = [rlfb_jax.train(argv).trained.q_error for _ in range(2)]
  for first, second in zip(*errors, strict=True):
    np.testing.assert_array_equal(first, second)


def test_an_environment_may_be_given(tmp_path):
  env = ProbeEnvironment(PROBES[1], episode_length=2)
  env.name = 'mine'
  argv = [*TINY[1:], '--num_seeds=1', f'--run_dir={tmp_path / "run"}']
  run, trained = rlfb_jax.train(argv, env)
  assert '--task=mine' in run.flags.read_text().splitlines()
  assert rlfb_jax.load_policy(run.root).task == 'mine'
  assert trained.evaluation.returns.max() > 1  # Two steps, each worth up to 1.
  rlfb_jax.train([f'--run_dir={run.root}', '--resume'], env)
  with pytest.raises(ValueError, match=r'--task=probe_observed is not .* given, mine'):
    rlfb_jax.train([*TINY, f'--run_dir={tmp_path / "other"}'], env)
  assert not (tmp_path / 'other').exists()


def test_an_adapted_environment_is_trained_and_evaluated_by_its_name(tmp_path, capsys):
  envs.register('toy', toy)
  run = tmp_path / 'run'
  argv = ['--task=toy', *TINY[1:], '--eval_interval=32', f'--run_dir={run}']
  with pytest.raises(ValueError, match='task=toi is unknown; did you mean toy'):
    rlfb_jax.train(['--task=toi', *TINY[1:]])
  _, trained = rlfb_jax.train(argv)
  assert trained.evaluation.returns.shape == (2, 3)
  assert rlfb_jax.load_policy(run).task == 'toy'

  # The toy tells success, and so does everything that evaluates.
  success = trained.evaluation.success
  assert success.shape == (2, 3)
  rates = metrics.read(run)['evaluation_success']
  np.testing.assert_allclose(rates[-1], success.mean(axis=1))
  record = json.loads((run / 'report' / 'evaluation.json').read_text())
  np.testing.assert_array_equal(record['success'], success)
  again = rlfb_jax.train([*argv, '--resume']).trained.evaluation
  np.testing.assert_array_equal(again.success, success)

  evaluate.main([f'--run={run}', '--num_episodes=2'])
  said = capsys.readouterr().out
  assert said.startswith('toy: true return')
  record = json.loads((run / 'report' / 'evaluation-toy-0.json').read_text())
  for index, row in enumerate(record['success']):
    assert (
      f'over 2 episodes, success in {np.mean(row):.0%}' in said.splitlines()[1 + index]
    )
