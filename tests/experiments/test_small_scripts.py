"""`outer_step.py` and `trained_parity.py`: what they refuse, say and keep."""

import json

import kept
import numpy as np
import outer_step
import pytest
import trained_parity

from rlfb_jax.training import export, files

STEPS = {
  'env_steps': [1000, 2000],
  'meta_gradient_norm': [1.0, 0.5],
  'supervised_gradient_norm': [110.0, 100.0],
  'meta_reward_change': [0.1, 0.3],
  'meta_reward_std': [1.0, 1.0],
}


def test_an_arm_is_described_by_the_ranges_of_its_ratios():
  assert outer_step.describe('default', STEPS) == (
    'default            2 steps; supervised over outer gradient 110 to 200; r_hat moves'
    ' by 10% to 30% of its spread'
  )


@pytest.fixture
def results(tmp_path, monkeypatch):
  monkeypatch.setattr(outer_step, 'RESULTS', tmp_path / 'outer_step.json')
  monkeypatch.setattr(kept, 'LOCKS', tmp_path / 'locks')
  return tmp_path / 'outer_step.json'


def test_each_arm_is_kept_as_soon_as_it_has_ended(results, monkeypatch, capsys):
  def run(arm, folder):
    if arm == 'default':
      raise RuntimeError('it breaks')
    return {'outer_steps': STEPS}

  monkeypatch.setattr(outer_step, 'run', run)
  results.write_text(json.dumps({'default': {'outer_steps': STEPS}}))
  with pytest.raises(RuntimeError, match='it breaks'):
    outer_step.main(['--arms=own_adam,default'])
  assert set(json.loads(results.read_text())) == {'default', 'own_adam'}
  outer_step.main(['--arms=own_adam'])
  said = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in said] == ['own_adam', 'default']


def test_nobody_saves_over_another(results, monkeypatch):
  monkeypatch.setattr(kept, 'PATIENCE', 0.02)
  kept.LOCKS.mkdir()
  with (
    files.locked(kept.LOCKS / 'outer_step.lock'),
    pytest.raises(SystemExit, match='another process has been saving'),
  ):
    outer_step.save('default', {})
  assert not results.exists()


def test_an_arm_that_there_is_not_is_refused(capsys):
  with pytest.raises(SystemExit):
    outer_step.main(['--arms=x'])
  assert '--arms=x is not one of shared_adam' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('argv', 'said'),
  [
    (['--policies=a', '--episodes=0'], '--episodes=0 must be at least 1'),
    (['--policies=a', '--mjx_states=0'], '--mjx_states=0 must be at least 1'),
    (['--policies=a,a'], 'names one twice; try --policies=a.'),
    (['--policies=no_such_folder'], 'no_such_folder holds no policy'),
  ],
)
def test_mistakes_are_one_sentence(argv, said, capsys):
  with pytest.raises(SystemExit):
    trained_parity.main(argv)
  assert said in capsys.readouterr().err


def test_a_task_that_dm_control_lacks_is_refused_before_any_is_compared(tmp_path):
  arrays = {
    'mean': np.zeros((1, 2), np.float32),
    'scale': np.ones((1, 2), np.float32),
    'layers': ((np.zeros((1, 2, 1), np.float32), np.zeros((1, 1), np.float32)),),
  }
  export.save(tmp_path, export.Policy(task='probe_choice', clip=1.0, **arrays))
  with pytest.raises(ValueError, match='probe_choice, which dm_control does not have'):
    trained_parity.read_policies([str(tmp_path)])
