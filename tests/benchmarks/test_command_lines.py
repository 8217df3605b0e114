"""Where results go, and what a wrong command line is told."""

import json

import accelerator
import accelerator_report
import command_line
import jax
import pytest
import report
import scaling
import update_report
import updates


@pytest.fixture
def folders(monkeypatch, tmp_path):
  monkeypatch.setattr(command_line, 'RESULTS', tmp_path / 'results')
  monkeypatch.setattr(command_line, 'SCRATCH', tmp_path / 'scratch')
  return tmp_path


PARSERS = {
  'throughput': lambda argv: command_line.parse(argv, ''),
  'updates': updates.parse,
  'scaling': scaling.parse,
}


@pytest.mark.parametrize('name', PARSERS)
def test_all_at_full_size_replaces_the_results_that_are_kept(name, folders, capsys):
  options = PARSERS[name]([])
  assert options.out == folders / 'results' / f'{name}.json'
  assert options.out.parent.is_dir()
  assert capsys.readouterr().err == ''


@pytest.mark.parametrize(
  ('name', 'flag'),
  [
    ('throughput', '--tiny'),
    ('throughput', '--only=physics,methods'),
    ('throughput', '--methods=ppo'),
    ('throughput', '--tasks=cheetah_run'),
    ('updates', '--quick'),
    ('updates', '--only=reward'),
    ('scaling', '--quick'),
  ],
)
def test_less_goes_elsewhere_and_says_where(name, flag, folders, capsys):
  options = PARSERS[name]([flag])
  assert options.out == folders / 'scratch' / f'{name}.json'
  assert str(options.out) in capsys.readouterr().err
  asked = folders / 'mine' / 'a.json'
  assert PARSERS[name]([flag, f'--out={asked}']).out == asked
  assert asked.parent.is_dir()


@pytest.mark.parametrize(
  ('name', 'flag', 'said'),
  [
    ('throughput', '--seeds=1,10,10', 'names one twice; try --seeds=1,10.'),
    ('throughput', '--seeds=', '--seeds= must be numbers, 1 first'),
    ('throughput', '--tasks=walker_walk,walker_walk', 'try --tasks=walker_walk.'),
    ('throughput', '--methods=ppo,ppo', 'names one twice; try --methods=ppo.'),
    ('throughput', '--only=physics,physics', 'names one twice; try --only=physics.'),
    ('updates', '--only=steps,steps', 'names one twice; try --only=steps.'),
    ('scaling', '--rounds=0', '--rounds=0 must be at least 1; try --rounds=1.'),
  ],
)
def test_mistakes_are_said_at_once(name, flag, said, folders, capsys):
  with pytest.raises(SystemExit):
    PARSERS[name]([flag])
  assert said in capsys.readouterr().err
  assert not list(folders.iterdir())


@pytest.mark.parametrize('module', [report, update_report, accelerator_report])
def test_a_report_of_no_file_is_one_sentence(module, tmp_path):
  for argv in ([], ['no_such.json'], ['a.json', 'b.json']):
    with pytest.raises(SystemExit, match='is not one file of raw samples; try python'):
      module.main(argv)
  path = tmp_path / 'a.json'
  path.write_text(json.dumps({'other': 1}))
  again = f'holds no samples; try python benchmarks/{module.__name__}.py'
  with pytest.raises(SystemExit, match=again):
    module.main([str(path)])


@pytest.mark.parametrize(
  ('backend', 'flags', 'folder'),
  [
    ('gpu', [], 'results'),
    ('cpu', [], 'scratch'),
    ('gpu', ['--seconds=1'], 'scratch'),
    ('gpu', ['--sizes=small'], 'scratch'),
    ('gpu', ['--only=native,mjx'], 'scratch'),
    ('gpu', ['--quick'], 'scratch'),
  ],
)
def test_results_of_an_accelerator_are_of_one(
  backend, flags, folder, folders, monkeypatch
):
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  assert accelerator.parse(flags).out == folders / folder / 'accelerator.json'


@pytest.mark.parametrize(
  ('flag', 'said'),
  [
    ('--seconds=-1', '--seconds=-1.0 must be at least 0; try --seconds=0.'),
    ('--seeds=2', '--seeds=2 is not one of 1, 10.'),
    ('--sizes=huge', '--sizes=huge is not one of walker, small.'),
  ],
)
def test_what_an_accelerator_is_not_asked_for(flag, said, folders, capsys):
  with pytest.raises(SystemExit):
    accelerator.parse([flag])
  assert said in capsys.readouterr().err
