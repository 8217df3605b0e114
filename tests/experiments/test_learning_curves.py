"""Learning curves: what is trained, resumed, left and drawn."""

import json

import learning_curves
import numpy as np
import pytest
from curves import Curve, plot

import rlfb_jax
from rlfb_jax.reports import records
from rlfb_jax.training import loop, run_dir
from rlfb_jax.training.evaluate import Episodes
from rlfb_jax.training.run import Finished

ARGUMENTS = ['--tasks=mine', '--arms=ppo', '--seeds=2', '--steps=200']


@pytest.fixture
def trained(tmp_path, monkeypatch):
  """Flags of all calls of `rlfb_jax.train`, the first of which is interrupted."""
  calls = []

  def train(flags):
    calls.append(flags)
    if len(calls) == 1:
      raise KeyboardInterrupt
    run = run_dir.create(str(tmp_path / 'run'), '', ['--method=ppo', '--seed=3'])
    lines = [
      {'env_steps': steps, 'episode_return': [1.0, 2.0], 'success_rate': [0.0, 0.5]}
      for steps in (100, 200)
    ]
    run.metrics.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    found = Episodes(np.ones((2, 3)), np.array([[True, False, False], [True] * 3]))
    return Finished(run, loop.Trained(None, None, found, None, 7.0))

  monkeypatch.setattr(rlfb_jax, 'train', train)
  monkeypatch.setattr(learning_curves, 'RESULTS', tmp_path / 'results')
  return calls


def test_an_arm_that_was_interrupted_goes_on_and_leaves_its_results(trained):
  options = learning_curves.arguments(ARGUMENTS)
  with pytest.raises(KeyboardInterrupt):
    learning_curves.run_arm('mine', 'ppo', options)
  assert not learning_curves.RESULTS.exists()
  for _ in range(2):
    learning_curves.run_arm('mine', 'ppo', options)
  first, second = trained
  assert first == second
  assert {'--run_dir=runs/learning_curves/mine-ppo', '--resume'} < set(first)
  (path,) = learning_curves.RESULTS.iterdir()
  assert path.name == 'mine-ppo.json'
  (record,) = records.read_curves(path)
  assert record.seeds == (3, 4)
  np.testing.assert_array_equal(record.columns['success_rate'], [[0, 0.5]] * 2)
  np.testing.assert_array_equal(record.success, [[1, 0, 0], [1, 1, 1]])
  # Two seeds and two lines: what leads with seeds is no column.
  assert not {'evaluation', 'success'} & set(record.columns)


def test_a_task_of_unknown_length_is_one_sentence(capsys):
  with pytest.raises(SystemExit):
    learning_curves.arguments(['--tasks=cartpole_balance'])
  said = capsys.readouterr().err
  assert '--tasks=cartpole_balance has no length of its own; try --steps=' in said
  for more in ('--steps=1000', '--scale=paper', '--draw_only'):
    learning_curves.arguments(['--tasks=cartpole_balance', more])


def test_more_curves_than_colours_are_drawn(tmp_path):
  curve = Curve(np.array([1, 2]), np.ones((2, 2)))
  path = tmp_path / 'a.svg'
  plot(path, {'mine': {f'arm {i}': curve for i in range(20)}})
  assert path.stat().st_size
