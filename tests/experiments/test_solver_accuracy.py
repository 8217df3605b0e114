"""`solver_accuracy.py`: what it compares, keeps and says."""

import json

import kept
import numpy as np
import pytest
import solver_accuracy as accuracy


@pytest.fixture
def results(tmp_path, monkeypatch):
  monkeypatch.setattr(accuracy, 'RESULTS', tmp_path / 'solver_accuracy.json')
  monkeypatch.setattr(kept, 'LOCKS', tmp_path / 'locks')
  return accuracy.RESULTS


def test_a_converged_solver_moves_the_cart_as_mujoco_does(results, monkeypatch):
  monkeypatch.setattr(accuracy, 'SOLVERS', ('benchmark',))
  results.write_text(json.dumps({'walker_walk': record()}))
  accuracy.main(['--tasks=cartpole_swingup', '--states=16'])
  records = json.loads(results.read_text())
  assert list(records) == ['cartpole_swingup', 'walker_walk']  # The other stayed.
  cart = records['cartpole_swingup']
  assert cart['states'] == 16
  found = cart['solvers']['benchmark']
  for steps in ('1', '10'):
    after = found['after'][steps]
    assert after['not_finite'] == 0
    # float32 shows, and nothing else: it is not the same number twice.
    assert 0 < after['obs']['median'] <= after['obs']['max'] < 1e-4
    assert after['reward']['max'] < 1e-4
  assert len(found['seconds']) == accuracy.ROUNDS
  assert 'cartpole_swingup' in results.with_suffix('.md').read_text()


def test_errors_are_of_the_worst_observation_of_each_state():
  theirs = {'obs': np.array([[0.0, 9.0], [1.0, 1.0], [0, 0]]), 'reward': np.zeros(3)}
  ours = {
    'obs': np.array([[0.5, 11.0], [1.0, 1.2], [np.nan, 0]]),
    'reward': np.array([0.0, 0.3, 0.0]),
  }
  found = accuracy.errors(ours, theirs)
  assert found['not_finite'] == 1
  assert found['obs']['max'] == 0.5  # Beside 2 of 1 + 9.
  assert found['obs']['median'] == pytest.approx((0.5 + 0.1) / 2)
  assert found['reward']['max'] == 0.3


def test_the_table_has_all_solvers_and_who_broke(results):
  text = accuracy.markdown({'walker_walk': record(not_finite=2)})
  row = '| walker_walk | fast | 2 / 5 | 4.0 | 1e-03 / 2e-02 | 1e-03 / 2e-02 | 0e+00 |'
  assert row in text
  assert '| walker_walk | benchmark | 100 / 50 | 1.0 |' in text
  assert 'walker_walk, fast: 2 states were not finite after 10 steps.' in text


def record(not_finite=0):
  obs, reward = {'median': 0.001, 'max': 0.02}, {'median': 0.0}
  after = {'obs': obs, 'reward': reward, 'not_finite': 0}
  broken = {**after, 'not_finite': not_finite}
  return {
    'manifest': {'command': ['x'], 'started': 'today'},
    'states': 8,
    'solvers': {
      'benchmark': {
        'iterations': [100, 50],
        'after': {'1': after, '10': after},
        'seconds': [1.0, 2.0, 4.0],
      },
      'fast': {
        'iterations': [2, 5],
        'after': {'1': after, '10': broken},
        'seconds': [0.5, 0.5, 1.0],
      },
    },
  }


@pytest.mark.parametrize(
  ('argv', 'said'),
  [
    (['--tasks=walker_run'], '--tasks=walker_run is not one of cartpole_swingup'),
    (['--states=4'], '--states=4 must be at least 8'),
    (['--states=20'], '--states=20 must be a multiple of 8; try --states=16.'),
  ],
)
def test_mistakes_are_one_sentence(argv, said, capsys, results):
  with pytest.raises(SystemExit):
    accuracy.main(argv)
  assert said in capsys.readouterr().err
  assert not results.exists()
