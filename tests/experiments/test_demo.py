"""The demo refuses before it trains, and ends in a sentence."""

import json
import sys

import demo
import numpy as np
import pytest
import running

from rlfb_jax.bin import launch
from rlfb_jax.methods import plan
from rlfb_jax.training import run_dir
from rlfb_jax.training.signals import Stopped


@pytest.fixture
def untrained(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(demo, 'train_run', lambda *begun: pytest.fail('it trains'))
  return tmp_path


@pytest.mark.parametrize(
  ('argv', 'said'),
  [
    (['--method=ppo'], '--method is set by the demo'),
    (['--run_dir=here'], '--run_dir is set by the demo'),
    (['--eval_episodes=0'], '--eval_episodes=0 must be at least 1'),
    (['--task=probe_observed'], '--task=probe_observed has no body to film'),
    (['--task=walker_wlk'], 'did you mean walker_walk?'),
    (['--num_seed=2'], 'did you mean --num_seeds?'),
  ],
)
def test_what_would_fail_after_training_is_refused_before(
  argv, said, untrained, capsys
):
  with pytest.raises(SystemExit) as ended:
    demo.main(argv)
  assert ended.value.code == 1
  error = capsys.readouterr().err
  assert said in error
  assert error.count('\n') == 1
  assert not list(untrained.iterdir())


def test_curves_that_cannot_be_drawn_are_said_before(untrained, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  with pytest.raises(SystemExit):
    demo.main([])
  assert "try pip install 'rlfb-jax[report]'" in capsys.readouterr().err


def test_help_lists_all_flags_and_runs_nothing(untrained, capsys):
  demo.main(['--help'])
  said = capsys.readouterr().out
  assert said.startswith('The main job in one command')
  assert '--num_seeds=' in said


def test_a_stop_is_a_sentence_and_the_signals_code(tmp_path, capsys):
  run = run_dir.RunDir(tmp_path / 'mine')
  with pytest.raises(SystemExit) as ended, running.said('demo', run):
    raise Stopped(2, env_steps=4000)
  assert ended.value.code == 130
  assert 'goes on from step 4,000' in capsys.readouterr().err


def test_the_end_of_pre_training_is_the_last_line_before_the_first_session(tmp_path):
  flags = ['--preset=demo', '--feedback_pretrain_steps=8000', '--tensorboard=false']
  begun = launch.begin([*flags, f'--run_dir={tmp_path / "run"}'])
  asked = plan.first_session(begun.config, begun.env)
  assert asked >= 8000
  lines = [(asked - 4000, [1.0, 2.0]), (asked, [3.0, 4.0]), (asked + 4000, [9.0, 9.0])]
  text = ''.join(
    json.dumps({'env_steps': steps, 'episode_return': values}) + '\n'
    for steps, values in lines
  )
  begun.run.metrics.write_text(text)
  np.testing.assert_array_equal(demo.before_ratings(begun), [3.0, 4.0])
  begun.run.metrics.write_text(text.splitlines()[-1] + '\n')
  assert demo.before_ratings(begun) is None


def test_the_table_holds_what_each_earned_and_the_paired_difference():
  results = {
    'rbrl_kl': np.array([[30.0, 50.0], [50.0, 70.0], [65.0, 75.0]]),
    'rbrl': np.array([[20.0, 20.0], [40.0, 40.0], [60.0, 60.0]]),
    'ppo': np.full((3, 2), 100.0),
  }
  first, *lines = demo.table('mine', np.array([4.0, 6.0]), None, results)
  assert first.startswith('mine, return of deterministic episodes')
  said = {line[:26].strip(): line[26:].strip() for line in lines}
  assert list(said) == [
    *('random policy', 'PPO on the true reward', 'RbRL', 'RbRL-KL'),
    'RbRL-KL minus RbRL',
  ]
  starts = {name: float(text.split()[0]) for name, text in said.items()}
  assert [starts[name] for name in said] == pytest.approx(
    [5.0, 100.0, 40.0, 170 / 3, 50 / 3], abs=0.06
  )
  # Differences of 20, 20 and 10: an interval of 4.303 x 5.774 / sqrt(3).
  assert '± 14.3  paired over 3 seeds' in said['RbRL-KL minus RbRL']
  (early,) = [
    line
    for line in demo.table('mine', np.ones(2), np.array([7.0, 9.0, 8.0]), results)
    if 'before any' in line
  ]
  assert early.split()[3] == '8.00'
  one = {method: values[:1] for method, values in results.items()}
  assert not any('minus' in line for line in demo.table('mine', np.ones(2), None, one))
