"""rlfb-evaluate end to end on a policy that we know."""

import errno
import json

import numpy as np
import pytest

from rlfb_jax.bin import evaluate
from rlfb_jax.training import export, returns
from rlfb_jax.training.evaluate import Episodes

TASK = 'cartpole_balance'
DS, DA, SEEDS = 5, 1, 3


@pytest.fixture
def run(tmp_path):
  """Three policies that always act with tanh(bias)."""
  policy = export.Policy(
    task=TASK,
    mean=np.zeros((SEEDS, DS), np.float32),
    scale=np.ones((SEEDS, DS), np.float32),
    layers=(
      (
        np.zeros((SEEDS, DS, DA), np.float32),
        np.array([[3.0], [0.0], [-3.0]], np.float32),
      ),
    ),
    clip=10.0,
  )
  export.save(tmp_path / 'policy', policy)
  return tmp_path


def test_it_measures_and_films(run, capsys, monkeypatch):
  monkeypatch.setenv('MUJOCO_GL', 'disable')
  evaluate.main([f'--run={run}', '--num_episodes=2', '--engine=native'])
  said = capsys.readouterr().out
  assert said.startswith(f'{TASK}: true return')
  assert said.count('over 2 episodes') == SEEDS
  assert 'over 3 policies' in said
  assert 'no clip: off-screen OpenGL is not available' in said
  (path,) = (run / 'report').iterdir()
  assert path.name == f'evaluation-{TASK}-0.json'
  record = json.loads(path.read_text())
  returns = np.array(record['returns'])
  assert returns.shape == (SEEDS, 2)
  # Standing still balances longest; pushing to a side is worse, and the clip shows
  # the median of the three.
  assert returns[1].mean() > max(returns[0].mean(), returns[2].mean())
  median = int(np.argsort(returns.mean(1))[1])
  assert f'policy {median}: no clip' in said


def test_what_the_run_found_itself_is_left_alone(run):
  own = run / 'report' / returns.FILE
  returns.save(own, TASK, 0, Episodes(np.zeros((SEEDS, 3))))
  before = own.read_bytes()
  flags = ['--num_episodes=1', '--engine=native', '--clip=false']
  for more in ([], ['--seed=7'], ['--task=cartpole_swingup']):
    evaluate.main([f'--run={run}', *flags, *more])
  assert own.read_bytes() == before
  assert {path.name for path in own.parent.iterdir()} == {
    returns.FILE,
    f'evaluation-{TASK}-0.json',
    f'evaluation-{TASK}-7.json',
    'evaluation-cartpole_swingup-0.json',
  }


@pytest.mark.parametrize(
  ('argv', 'sentence'),
  [
    (['--task=walker_walk'], 'try --task=cartpole_balance'),
    (['--task=walker_wak'], 'did you mean walker_walk'),
    (['--clip_seed=3'], 'seed=3 is not in this export; it has 0 to 2'),
    (['--num_episode=3'], 'did you mean --num_episodes'),
    (['--run='], 'try --run=runs/NAME'),
    (['--run=nowhere'], 'nowhere holds no policy'),
  ],
)
def test_mistakes_are_one_sentence(run, capsys, argv, sentence):
  with pytest.raises(SystemExit) as caught:
    evaluate.main([f'--run={run}', *argv])
  assert caught.value.code == 1
  error = capsys.readouterr().err
  assert sentence in error
  assert error.count('\n') == 1


@pytest.mark.parametrize('nowhere', ['/dev/null', '/proc/self'])
def test_nothing_is_played_for_a_run_that_takes_no_file(
  run, monkeypatch, capsys, nowhere
):
  (run / 'report').symlink_to(nowhere)
  monkeypatch.setattr(evaluate.evaluate, 'evaluate_seeds', None)
  with pytest.raises(SystemExit) as caught:
    evaluate.main([f'--run={run}', '--engine=native'])
  assert caught.value.code == 1
  said = capsys.readouterr()
  assert said.out == ''
  assert said.err.startswith(f'rlfb-evaluate: --run={run} cannot be written to (')
  assert said.err.endswith('); name a copy that can.\n')
  assert said.err.count('\n') == 1


def test_what_was_played_is_told_though_it_cannot_be_saved(run, monkeypatch, capsys):
  def full(*args):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(evaluate.returns_lib, 'save', full)
  with pytest.raises(SystemExit) as caught:
    evaluate.main([f'--run={run}', '--num_episodes=1', '--engine=native'])
  assert caught.value.code == 1
  said = capsys.readouterr()
  assert said.out.count('over 1 episodes') == SEEDS
  assert said.err.count('\n') == 1
  assert 'cannot be written to (No space left on device)' in said.err


def test_engines_are_chosen_as_in_training(run, monkeypatch):
  made = []

  def make(task, **settings):
    made.append((task, settings))
    raise ValueError('enough')

  monkeypatch.setattr(evaluate, 'make', make)
  flags = ['--engine=mjx', '--impl=warp', '--solver=trimmed', '--num_threads=3']
  with pytest.raises(SystemExit):
    evaluate.main([f'--run={run}', *flags])
  settings = {'engine': 'mjx', 'impl': 'warp', 'solver': 'trimmed', 'num_threads': 3}
  assert made == [(TASK, settings)]


def test_help_lists_the_flags(capsys):
  evaluate.main(['--help'])
  said = capsys.readouterr().out
  assert '--num_episodes=10' in said
  assert '--engine=auto' in said
  assert '--solver=benchmark' in said
