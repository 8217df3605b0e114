"""Learning curves: what is trained, resumed, left and drawn."""

import json

import learning_curves
import numpy as np
import pytest
from curves import Curve, plot

from rlfb_jax.bin import launch
from rlfb_jax.reports import records
from rlfb_jax.training import loop, run_dir
from rlfb_jax.training.evaluate import Episodes
from rlfb_jax.training.run import Finished

ARGUMENTS = ['--tasks=mine', '--arms=ppo', '--seeds=2', '--steps=200']


@pytest.fixture
def trained(tmp_path, monkeypatch):
  """Flags of all calls of `train`, the first of which is interrupted."""
  calls = []

  def train(program, flags):
    calls.append(flags)
    if len(calls) == 1:
      raise KeyboardInterrupt
    run = run_dir.create(str(tmp_path / 'run'), '', ['--method=ppo', '--seed=3'])
    lines = [
      {'env_steps': 100, 'episode_return': [1.0, None], 'success_rate': [0.0, 0.5]},
      {'env_steps': 200, 'episode_return': [1.0, 2.0], 'success_rate': [0.0, 0.5]},
    ]
    run.metrics.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    found = Episodes(np.ones((2, 3)), np.array([[True, False, False], [True] * 3]))
    return Finished(run, loop.Trained(None, None, found, None, 7.0))

  monkeypatch.setattr(learning_curves.running, 'train', train)
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
  raw = json.loads(path.read_text(), parse_constant=pytest.fail)
  assert raw['episode_return'] == [[1.0, None], [1.0, 2.0]]
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
  for more in ('--steps=1000', '--draw_only'):
    learning_curves.arguments(['--tasks=cartpole_balance', more])


@pytest.mark.parametrize(
  ('flag', 'said'),
  [
    ('--arms=pppo', '--arms=pppo is not one of ppo, rbrl'),
    ('--arms=ppo,ppo', 'names one twice; try --arms=ppo.'),
    ('--seeds=0', '--seeds=0 must be at least 1'),
    ('--steps=-1', '--steps=-1 must be at least 0'),
  ],
)
def test_mistakes_are_said_at_once(flag, said, capsys):
  with pytest.raises(SystemExit):
    learning_curves.arguments([flag])
  assert said in capsys.readouterr().err


@pytest.mark.parametrize(
  ('argv', 'said'),
  [
    (['--tasks=walker_wlk', '--steps=1000'], 'did you mean walker_walk?'),
    (['--preset=steddy'], 'did you mean steady?'),
    (['--tasks=walker_walk', '--arms=ppo', '--seeds=2'], 'holds 5 seeds, not 2 seeds'),
  ],
)
def test_what_cannot_be_run_is_one_sentence(argv, said, monkeypatch, capsys):
  monkeypatch.setattr(learning_curves.sys, 'argv', ['learning_curves.py', *argv])
  with pytest.raises(SystemExit) as ended:
    learning_curves.main()
  assert ended.value.code == 1
  error = capsys.readouterr().err
  assert said in error
  assert error.count('\n') == 1


def _record(*argv):
  flags = launch.flag_values(launch.parse(['--preset=fast', *argv]))
  return {'flags': [f'--{name}={value}' for name, value in flags.items()]}


def test_results_of_other_flags_are_not_taken_for_those_asked_for():
  record = _record('--method=rbrl', '--total_env_steps=100000', '--num_seeds=2')
  same = ['--preset=fast', '--method=rbrl', '--total_env_steps=100000']
  asked = launch.parse([*same, '--num_seeds=2', '--run_dir=elsewhere'])
  learning_curves.check_same('a.json', record, asked)
  # RbRL has no repulsion, and a record may be older than a flag.
  learning_curves.check_same(
    'a.json', record, launch.parse([*same, '--num_seeds=2', '--kl_beta=7'])
  )
  older = {'flags': [f for f in record['flags'] if not f.startswith('--ppo_')]}
  asked = launch.parse([*same, '--num_seeds=2', '--ppo_hidden_size=8'])
  learning_curves.check_same('a.json', older, asked)
  with pytest.raises(ValueError, match='holds --ppo_hidden_size=256, not --ppo_hidden'):
    learning_curves.check_same('a.json', record, asked)
  longer = launch.parse([*same, '--total_env_steps=200000', '--num_seeds=5'])
  with pytest.raises(
    ValueError, match='holds 100,000 steps, 2 seeds, not 200,000 steps, 5 seeds; give'
  ):
    learning_curves.check_same('a.json', record, longer)


def test_committed_lengths_are_those_of_the_groups():
  for group in learning_curves.GROUPS.values():
    for task, steps in group.steps.items():
      for arm in learning_curves.load(group, task, '').values():
        assert arm['env_steps'][-1] == steps


def _arm(returns, evaluation=((1.0,),), **more):
  steps = [100 * (i + 1) for i in range(len(returns))]
  flags = ['--feedback_pretrain_steps=100']
  found = {'env_steps': steps, 'episode_return': returns, 'flags': flags}
  return {**found, 'evaluation': evaluation, **more}


def test_arms_are_the_same_until_the_first_label_or_not_paired():
  one, other = _arm([[1.0, 2.0], [3.0, 4.0]]), _arm([[1.0, 2.0], [9.0, 9.0]])
  assert learning_curves.same_until_taught(one, other)
  assert not learning_curves.same_until_taught(one, _arm([[1.0, 2.5], [3.0, 4.0]]))
  # Nothing ended before the first label: nothing is known.
  none = _arm([[None, None], [3.0, 4.0]])
  assert not learning_curves.same_until_taught(none, none)


def test_rows_say_returns_and_differences():
  classes = [[[None, None]] * 2, [[4, 6], [2, 8]]]
  records = {
    'rbrl': _arm([[1.0, 2.0], [3.0, 5.0]], [[4.0], [6.0]], class_counts=classes),
    'rbrl_kl': _arm([[1.0, 2.0], [4.0, 6.0]], [[7.0], [9.0]]),
    'shuffled': _arm([[0.0, 2.0], [4.0, 6.0]], [[7.0], [9.0]]),
  }
  random = np.array([1.0, 1.0])
  lines = learning_curves.table(learning_curves.RATINGS, 'mine', records, random)
  assert lines[0] == '**mine**, training returns of the last tenth of 200 steps'
  (row,) = [line for line in lines if line.startswith('| rbrl |')]
  assert row.startswith('| rbrl | 2 | 4.00 ± 12.71 | 5.00 ± 12.71 | 200 | 3 / 7 |')
  assert any('| rbrl_kl minus rbrl, paired | | 1.00 ± 0.00 |' in x for x in lines)
  assert '| rbrl_kl minus shuffled | | not paired | | | |' in lines


def test_what_was_not_watched_leaves_its_cell_empty():
  assert learning_curves.label_histogram({}) == ''
  assert learning_curves.label_histogram({'class_counts': [[[None]]]}) == ''
  assert learning_curves.q_error({}) == ''
  error = {'q_error': {'standardised': [0.5, 0.5, 0.5]}}
  assert learning_curves.q_error(error) == '0.50 ± 0.00'


def test_axes_say_which_episodes_they_show_once_for_neighbours(tmp_path, monkeypatch):
  from matplotlib import pyplot

  kept = []
  monkeypatch.setattr(pyplot, 'close', kept.append)
  curve = Curve(np.array([1, 2]), np.ones((2, 2)))
  panels = {task: {'mrn': curve} for task in 'abcd'}
  plot(tmp_path / 'a.svg', panels, evaluated=['b', 'c'])
  training, evaluated = (
    'true return of training episodes',
    'true return, deterministic evaluation',
  )
  labels = [axis.get_ylabel() for axis in kept[0].axes]
  assert labels == [training, evaluated, '', training]


def test_more_curves_than_colours_are_drawn(tmp_path):
  curve = Curve(np.array([1, 2]), np.ones((2, 2)))
  path = tmp_path / 'a.svg'
  plot(path, {'mine': {f'arm {i}': curve for i in range(20)}})
  assert path.stat().st_size
