"""What a sweep varies, from the command line and from a file."""

import pytest

from rlfb_jax.bin import sweep
from rlfb_jax.sweeps.definition import Sweep, read, read_arm, read_axis


def test_every_arm_meets_every_combination_in_order():
  sweep = Sweep(
    base=('--seed=5',),
    grid={'task': ('a', 'b'), 'kl_beta': ('0.1', '0.3')},
    arms={'one': {'method': 'ppo'}, 'two': {'method': 'rbrl'}},
  )
  cells = sweep.cells()
  assert len(cells) == 8
  assert cells[1].arm == 'one'
  assert cells[1].flags == (('method', 'ppo'), ('task', 'a'), ('kl_beta', '0.3'))
  assert sweep.arguments(cells[1]) == [
    '--seed=5',
    '--method=ppo',
    '--task=a',
    '--kl_beta=0.3',
  ]
  assert [c.flags for c in Sweep().cells()] == [()]


def test_axes_and_arms_are_read():
  assert read_axis('kl_beta=0.1, 0.3') == ('kl_beta', ('0.1', '0.3'))
  # A value may hold a comma itself.
  assert read_axis('add=kl,surf;rune') == ('add', ('kl,surf', 'rune'))
  arm = read_arm('strong push: --kl_beta=0.3 kl_bound=identity')
  assert arm == ('strong push', {'kl_beta': '0.3', 'kl_bound': 'identity'})


def test_a_file_says_the_same(tmp_path):
  path = tmp_path / 'sweep.toml'
  path.write_text("""
    seeds = 3
    [flags]
    total_env_steps = 1000
    tensorboard = false
    [grid]
    task = ["a", "b"]
    add = ["kl,surf"]
    [arms.mine]
    kl_beta = 0.3
  """)
  assert read(str(path)) == Sweep(
    seeds=3,
    base=('--total_env_steps=1000', '--tensorboard=false'),
    grid={'task': ('a', 'b'), 'add': ('kl,surf',)},
    arms={'mine': {'kl_beta': '0.3'}},
  )


@pytest.mark.parametrize(
  ('text', 'sentence'),
  [
    ('seed = 3', 'key=seed is unknown; did you mean seeds?'),
    ('seeds = "3"', 'seeds must be a whole number'),
    ('grid = 3', r'grid must be a table, \[grid\]'),
    ('[arms]\nmine = 3', r'arm mine must be a table, \[arms.mine\]'),
    ('[grid]\nkl_beta = []', 'kl_beta has no value'),
    ('[grid]\nkl_beta = [1, 1]', 'kl_beta has a value twice'),
    ('[grid]\nnum_seeds = [1, 2]', '--num_seeds is not for a sweep: .* --seeds'),
    ('[flags]\nrun_dir = "x"', '--run_dir is not for a sweep'),
    ('[flags]\nnum_processes = 2', 'a job runs on one host; .* --shard'),
    ('seeds = 0', 'must be at least 1; try 1'),
    ('[grid]\nseed = [1]\n[arms.a]\nseed = 2', 'set by arm a and by the grid'),
    ('= 3', 'is not TOML'),
  ],
)
def test_mistakes_in_a_file_are_one_sentence(tmp_path, text, sentence):
  path = tmp_path / 'sweep.toml'
  path.write_text(text)
  with pytest.raises(ValueError, match=sentence) as caught:
    read(str(path))
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('text', ['kl_beta', 'kl_beta=', '=3', 'kl_beta=,'])
def test_an_axis_needs_a_flag_and_values(text):
  with pytest.raises(ValueError, match='must be a flag and its values'):
    read_axis(text)


@pytest.mark.parametrize('text', ['kl_beta=3', ': kl_beta=3', 'a: kl_beta'])
def test_an_arm_needs_a_name_and_flags(text):
  with pytest.raises(ValueError, match='must be a name and flags'):
    read_arm(text)


@pytest.mark.parametrize(
  ('given', 'sentence'),
  [
    (
      ['--grid=kl_beta=0.1', '--grid=kl_beta=0.3,0.5'],
      '--grid=kl_beta is given twice; .* as --grid=kl_beta=0.1,0.3,0.5.$',
    ),
    (
      ['--arm=a: kl_beta=0.1', '--arm= a : seed=3'],
      "--arm='a: ...' is given twice; each needs its own name.$",
    ),
    (
      ['--arm=a: kl_beta=0.1 --kl_beta=0.3'],
      "kl_beta=0.3' sets kl_beta twice; leave one of them out.$",
    ),
  ],
)
def test_what_is_given_twice_is_refused_and_not_dropped(given, sentence):
  with pytest.raises(ValueError, match=sentence):
    sweep.parse(['--out=x', *given])
