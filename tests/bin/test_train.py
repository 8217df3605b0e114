"""rlfb-train end to end, in a world that takes seconds."""

import json

import jax
import numpy as np
import pytest

from rlfb_jax.bin import train
from rlfb_jax.training import export, metrics, run_dir
from rlfb_jax.training.run import broken_seeds

TINY = (
  '--task=probe_observed',
  '--method=ppo',
  '--num_seeds=2',
  '--total_env_steps=64',
  '--ppo_num_envs=4',
  '--ppo_rollout_steps=8',
  '--ppo_minibatch_size=16',
  '--ppo_num_epochs=1',
  '--ppo_hidden_size=4',
  '--ppo_hidden_layers=1',
  '--eval_episodes=3',
)
CLOCKS = ('wall_seconds', 'steps_per_second')


def test_a_run_leaves_everything_and_its_flags_repeat_it(tmp_path, capsys):
  first, second = tmp_path / 'first', tmp_path / 'second'
  train.main([*TINY, f'--run_dir={first}'])
  captured = capsys.readouterr()
  assert captured.out.startswith('probe_observed: true return')
  assert 'over 2 policies' in captured.out
  assert f'writing to {first}' in captured.err
  assert '100%  64 steps' in captured.err

  for name in ('flags.txt', 'manifest.json', 'metrics.jsonl', 'policy/policy.npz'):
    assert (first / name).is_file()
  assert list((first / 'tensorboard').iterdir())
  found = metrics.read(first)
  np.testing.assert_array_equal(found['env_steps'], [32, 64])
  assert found['policy_loss'].shape == (2, 2)
  returns = json.loads((first / 'report' / 'evaluation.json').read_text())['returns']
  assert np.shape(returns) == (2, 3)
  policy = export.load_policy(first)
  assert (policy.task, policy.num_seeds) == ('probe_observed', 2)

  train.main([f'--flagfile={first}/flags.txt', f'--run_dir={second}'])
  again = metrics.read(second)
  for name in set(found) - set(CLOCKS):
    np.testing.assert_array_equal(found[name], again[name], err_msg=name)
  for a, b in zip(policy.layers, export.load_policy(second).layers, strict=True):
    np.testing.assert_array_equal(a[0], b[0])


@pytest.mark.parametrize(
  ('argv', 'sentence'),
  [
    (['--task=walker_wak'], 'task=walker_wak is unknown; did you mean walker_walk?'),
    (['--method=rbl'], '--method=rbl is unknown; did you mean rbrl?'),
    (['--ppo_num_env=4'], 'did you mean --ppo_num_envs?'),
    (['--preset=logged'], '--preset=logged is unknown'),
    (['--total_env_steps=100000'], 'try --total_env_steps=96000'),
    (['--ppo_minibatch_size=96'], '--ppo_minibatch_size=96 must divide'),
    (['--kl_weights=geometri'], 'did you mean geometric'),
  ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
  tmp_path, monkeypatch, capsys, argv, sentence
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit) as caught:
    train.main(['--run_dir=new', *argv])
  assert caught.value.code == 1
  error = capsys.readouterr().err
  assert error.startswith('rlfb-train: ')
  assert sentence in error
  assert error.count('\n') == 1
  assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('name', ['flags.txt', 'rows.json.new', 'manifest.json.new'])
def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, capsys, name):
  (tmp_path / name).mkdir()
  with pytest.raises(SystemExit) as caught:
    train.main([*TINY, f'--run_dir={tmp_path}'])
  assert caught.value.code == 1
  assert capsys.readouterr().err == (
    f'rlfb-train: --run_dir={tmp_path} cannot be written to (Is a directory); name'
    ' another folder.\n'
  )


def test_seeds_that_broke_are_named(tmp_path):
  rows = [run_dir.Row(10, {}), run_dir.Row(11, {})]
  run = run_dir.create(str(tmp_path), 'x', rows=rows)
  with metrics.MetricsWriter(run, tensorboard=False) as writer:
    writer.write(32, {'phase': 'random'})
    writer.write(64, {'non_finite_updates': np.float32([0, 3])})
    for step in (96, 128):
      values = {'reward_non_finite': [2, 0], 'kl/gradient_dropped': [0.0, 0.25]}
      counts = {'non_finite_updates': [0, 3], **values}
      writer.write(step, {name: np.float32(x) for name, x in counts.items()})
  sentences = broken_seeds(run)
  assert [s.partition(';')[0] for s in sentences] == [
    'seed 11 left out 3 updates whose gradient was not finite',
    'seed 10 left out 4 steps of the reward whose loss was not finite',
    'seed 11 dropped repulsions that were not finite in 2 chunks',
  ]


@pytest.mark.parametrize('num_seeds', [1, 3])
def test_the_memory_is_told_before_it_is_taken(
  tmp_path, monkeypatch, capsys, num_seeds
):
  said = []

  def allocate(*args, **kwargs):
    said.append(capsys.readouterr().err)
    raise KeyboardInterrupt

  monkeypatch.setattr(train, 'train_run', allocate)
  argv = ['--task=probe_choice', '--method=sac', '--replay_capacity=1048576']
  with pytest.raises(SystemExit):
    train.main([*argv, f'--num_seeds={num_seeds}', f'--run_dir={tmp_path}'])
  copies = num_seeds
  if num_seeds > 1 and jax.default_backend() == 'cpu':
    copies = 2 * num_seeds + 1
  # Observation, action, next observation, two ends and a reward, in four bytes each.
  line = f'takes {copies * 4 * 6} MiB of memory for replay, clips and labels\n'
  assert said == [f'rlfb-train: writing to {tmp_path}; {line}']


def test_help_lists_the_flags_of_every_part(capsys):
  train.main(['--help'])
  said = capsys.readouterr().out
  for flag in ('--num_seeds=1', '--ppo_discount=0.99', '--kl_mode=pathwise'):
    assert flag in said
