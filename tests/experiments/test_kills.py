"""What the scripts that kill call a difference; killing nothing shows nothing."""

import kill_runs
import kill_sweep
import numpy as np
import pytest

SAME = {
  'lines': 4,
  'differing_lines': 0,
  'bits': 64,
  'differing_bits': 0,
  'differing_bits_of_the_policy': 0,
  'evaluations_differ': False,
}
DEATH = {'where': 'inside a save', 'line': 300, 'saved': 200, 'resumed': 200}


def test_differing_bits_are_counted():
  zero = {'a': np.zeros(2, np.uint8), 'b': np.float32(1.0)}
  assert kill_runs.differing_bits(zero, zero) == 0
  assert kill_runs.differing_bits(zero, {**zero, 'a': np.uint8([0, 7])}) == 3
  # Of what cannot be compared all bits differ.
  assert kill_runs.differing_bits(zero, {**zero, 'a': np.zeros(3, np.uint8)}) == 24
  assert kill_runs.differing_bits(zero, {'a': zero['a']}) == 32
  assert kill_runs.differing_bits({}, zero) == 48


def test_lines_that_only_one_run_has_differ():
  lines = [{'env_steps': i} for i in range(4)]
  assert kill_runs.differing_lines(lines, lines) == 0
  assert kill_runs.differing_lines(lines, lines[:2]) == 2
  assert kill_runs.differing_lines(lines[1:], lines) == 4


def test_a_row_says_where_kills_fell():
  run = {**SAME, 'kills': [DEATH, {**DEATH, 'line': 500}]}
  assert kill_runs.summary('x', run) == (
    '| x | 2 | 2 inside a save | 200 / 300 | 0 | 0 of 4 | 0 of 64 |'
  )
  assert kill_runs.summary('x', {**SAME, 'kills': []}).startswith('| x | 0 |  | 0 / 0 ')


def test_a_difference_or_no_kill_is_a_failure():
  assert not kill_runs.failed({**SAME, 'kills': [DEATH]})
  assert kill_runs.failed({**SAME, 'kills': []})
  for name in SAME.keys() - {'lines', 'bits'}:
    assert kill_runs.failed({**SAME, 'kills': [DEATH], name: 1})


def test_the_exit_code_is_that_of_the_runs(tmp_path, monkeypatch):
  found = {'pebble': {**SAME, 'kills': [DEATH]}, 'sac_mjx': {**SAME, 'kills': []}}
  monkeypatch.setattr(kill_runs, 'kill', lambda method, out, kills: found[method])
  out = f'--out={tmp_path / "new"}'
  assert kill_runs.main([out, '--methods=pebble']) == 0
  assert kill_runs.main([out, '--methods=pebble,sac_mjx']) == 1


@pytest.mark.parametrize('parse', [kill_runs.parse, kill_sweep.parse])
def test_mistakes_are_said_before_anything_runs(parse, tmp_path, capsys):
  (tmp_path / 'old').write_text('')
  for flag, said in (
    ('--kills=0', '--kills=0 must be at least 1'),
    (f'--out={tmp_path}', 'must be an empty folder or a new one'),
  ):
    with pytest.raises(SystemExit):
      parse([flag])
    assert said in capsys.readouterr().err


def test_a_method_that_there_is_not_is_refused(capsys):
  with pytest.raises(SystemExit):
    kill_runs.parse(['--methods=peble'])
  assert '--methods=peble is not one of pebble, mrn_both' in capsys.readouterr().err


def _job(sweep, name):
  (sweep / name / 'locks').mkdir(parents=True)
  (sweep / name / 'locks' / '1').write_text('')
  (sweep / name / 'job.json').write_text('{}')
  (sweep / name / 'metrics.jsonl').write_text('{}\n{}\n')


def test_jobs_of_one_sweep_alone_are_a_difference(tmp_path, monkeypatch):
  here, there = tmp_path / 'a', tmp_path / 'b'
  for sweep, names in ((here, ('both', 'mine')), (there, ('both', 'theirs'))):
    for name in names:
      _job(sweep, name)
  monkeypatch.setattr(kill_sweep, 'differing', lambda one, other: [])
  assert kill_sweep.compare(here, there) == [
    ('both', 1, 2, []),
    ('mine', 0, 0, ['only in the undisturbed sweep']),
    ('theirs', 0, 0, ['only in the disturbed sweep']),
  ]
  assert kill_sweep.compare(tmp_path / 'c', tmp_path / 'd') == []


def test_nothing_is_shown_unless_all_kills_fell_and_all_starts_ended_well():
  story = kill_sweep.Story(['a'], kills=3, planned=3, codes={'last start': 0})
  same = [('job', 1, 2, [])]
  assert kill_sweep.problems(same, story) == []
  assert kill_sweep.problems([], story) == ['There is no job.']
  assert kill_sweep.problems([('job', 1, 2, ['x'])], story) == ['Something differs.']
  late = story._replace(kills=2, codes={'last start': 1})
  assert kill_sweep.problems(same, late) == [
    'Only 2 of 3 kills came before the end.',
    'last start ended with code 1.',
  ]


def test_what_is_kept_says_how_it_was_made():
  made = {
    'command': ['experiments/kill_sweep.py', '--kills=4'],
    'started': 'now',
    'git': {'revision': 'abc', 'changed': True},
    'versions': {'jax': '1', 'brax': None},
  }
  story = kill_sweep.Story(['start 1'], 1, 1, {})
  text = kill_sweep.markdown(made, story, ['| a |'])
  said = '`python experiments/kill_sweep.py --kills=4`, now, revision abc with changes'
  assert f'{said}. jax 1.' in text
  assert '- start 1' in text
