"""The command line derived from option dataclasses."""

import dataclasses
import math

import pytest

from rlfb_jax.bin import flags, option_flags
from rlfb_jax.core.config import Options, option


@dataclasses.dataclass(frozen=True)
class RunOptions(Options):
  method: str = option('rbrl', 'Method.', choices=('ppo', 'rbrl', 'rbrl_kl'))
  num_seeds: int = option(3, 'Seeds side by side.', low=1)
  total_steps: int = option(1000, 'Control steps.', low=1)
  record: bool = option(False, 'Whether to record.')
  run_dir: str = option('', 'Where the run is kept.')


@dataclasses.dataclass(frozen=True)
class KLOptions(Options):
  kl_mode: str = option('gaussian', 'Which.', choices=('gaussian', 'literal'))
  weight: float = option(0.1, 'Scale.', low=0.0, below=2.0)
  sizes: tuple[int, ...] = option((8, 8), 'Widths.')
  budget: float | None = option(None, 'Gradient budget; none is without.', above=0)

  def __post_init__(self):
    super().__post_init__()
    if self.weight < len(self.sizes) - 3:
      raise ValueError(f'weight={self.weight} is too small; try weight=1.')


SECTIONS = {'': RunOptions, 'kl': KLOptions}


def parse(*argv, checks=()):
  return flags.parse(argv, SECTIONS, checks)


def test_defaults_are_the_dataclasses_own():
  assert parse() == {'': RunOptions(), 'kl': KLOptions()}


def test_every_kind_of_value_is_read():
  config = parse(
    '--method=ppo',
    '--num_seeds',
    '5',
    '--total_steps=4e6',
    '--record',
    '--kl_mode=literal',
    '--kl_weight=1.5',
    '--kl_sizes=256,256,256',
    '--kl_budget=0.25',
  )
  assert config[''] == RunOptions('ppo', 5, 4_000_000, True)
  assert config['kl'] == KLOptions('literal', 1.5, (256, 256, 256), 0.25)
  assert type(config[''].total_steps) is int
  assert parse('--record', '--norecord')[''].record is False
  assert parse('--kl_budget=1', '--kl_budget=none')['kl'].budget is None
  assert parse('--kl_sizes=')['kl'].sizes == ()


@pytest.mark.parametrize(
  ('argv', 'sentence'),
  [
    ('--num_seed=3', '--num_seed is unknown; did you mean --num_seeds?'),
    ('--kl-weight=1', '--kl-weight is unknown; did you mean --kl_weight?'),
    ('--qqq=1', '--qqq is unknown; --help lists all flags.'),
    ('--method=rbrlkl', '--method=rbrlkl is unknown; did you mean rbrl_kl?'),
    ('--method=x', '--method=x is unknown; there are ppo, rbrl, rbrl_kl.'),
    ('--num_seeds=0', '--num_seeds=0 must be at least 1; try 1.'),
    ('--kl_weight=2', '--kl_weight=2.0 must be less than 2.0.'),
    ('--kl_weight=nan', '--kl_weight=nan must be a finite number.'),
    ('--kl_weight=much', '--kl_weight=much must be a number.'),
    ('--num_seeds=2.5', '--num_seeds=2.5 must be a whole number.'),
    ('--num_seeds=inf', '--num_seeds=inf must be a whole number.'),
    ('--kl_sizes=8,big', '--kl_sizes=big must be a whole number.'),
    ('--record=maybe', '--record=maybe must be true or false.'),
    ('walker_walk', 'walker_walk is not a flag; flags are written --name=value.'),
    ('--preset=', '--preset needs a value, as in --preset=NAME.'),
  ],
)
def test_a_wrong_line_is_refused_in_one_sentence(argv, sentence):
  with pytest.raises(ValueError) as caught:  # noqa: PT011
    parse(argv)
  assert str(caught.value) == sentence


def test_a_sections_own_check_speaks_of_flags():
  with pytest.raises(ValueError, match=r'^--kl_weight=0.1 is too.*try --kl_weight=1.$'):
    parse('--kl_sizes=1,2,3,4')


def test_cross_checks_see_the_whole_configuration():
  def check(config):
    if config[''].method == 'ppo' and config['kl'].weight != 0.1:
      raise ValueError('--kl_weight has no effect with --method=ppo; try rbrl_kl.')

  parse('--method=ppo', checks=[check])
  with pytest.raises(ValueError, match='no effect'):
    parse('--method=ppo', '--kl_weight=1', checks=[check])


def test_saved_flags_repeat_the_run(tmp_path):
  config = parse(
    '--record', f'--kl_weight={1 / 3}', '--kl_budget=1e-12', '--run_dir=runs/a b'
  )
  path = tmp_path / 'flags.txt'
  path.write_text('\n'.join(flags.to_lines(config)))
  assert parse(f'--flagfile={path}') == config
  assert parse('--flagfile', str(path)) == config
  path.write_text('\n'.join(flags.to_lines(config, omit=('run_dir',))))
  assert parse(f'--flagfile={path}')[''].run_dir == ''


def test_the_command_line_wins_over_files_wherever_it_stands(tmp_path):
  path = tmp_path / 'flags.txt'
  path.write_text('--num_seeds=7\n# a comment\n\n--kl_weight=0.5\n')
  for argv in (['--num_seeds=9', f'--flagfile={path}'], [f'--flagfile={path}']):
    config = parse(*argv)
    assert config[''].num_seeds == (9 if len(argv) == 2 else 7)
    assert math.isclose(config['kl'].weight, 0.5)


def test_a_flag_file_that_is_not_there_is_one_sentence(tmp_path):
  with pytest.raises(ValueError, match=r'cannot be read \(No such file'):
    parse(f'--flagfile={tmp_path}/none.txt')


def test_presets_are_found_by_name(tmp_path, monkeypatch):
  (tmp_path / 'paper.flags').write_text('--method=ppo\n--kl_weight=1.25\n')
  (tmp_path / 'base.txt').write_text('--kl_weight=0.5\n')
  monkeypatch.setattr(flags.resources, 'files', lambda package: tmp_path)
  config = parse('--method=rbrl', '--preset=paper')
  assert config[''].method == 'rbrl'
  assert config['kl'].weight == 1.25
  # A run's own flag file is more particular than a preset.
  argv = [f'--flagfile={tmp_path}/base.txt', '--preset=paper']
  assert parse(*argv)['kl'].weight == 0.5
  with pytest.raises(ValueError, match='--preset=papr is unknown; did you mean paper'):
    parse('--preset=papr')


def test_help_names_every_flag_with_its_rule():
  text = flags.help_text('usage', SECTIONS)
  for prefix, section in SECTIONS.items():
    for field in dataclasses.fields(section):
      name = option_flags.flag_name(prefix, field.name)
      assert f'--{name}={option_flags.to_text(field.default)}' in text
      assert field.metadata['help'] in text
  assert '(>= 0.0 and < 2.0)' in text
  assert '(one of ppo, rbrl, rbrl_kl)' in text


def test_a_wrong_line_ends_the_program_without_a_traceback(capsys):
  with pytest.raises(SystemExit) as caught, flags.usage_errors('rlfb-train'):
    parse('--num_seed=3')
  assert caught.value.code == 1
  error = capsys.readouterr().err
  assert error == 'rlfb-train: --num_seed is unknown; did you mean --num_seeds?\n'
