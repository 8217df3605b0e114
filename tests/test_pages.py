"""What the pages tell to type means something, and their links lead somewhere."""

import dataclasses
import glob
import pathlib
import re
import shlex

import pytest

from rlfb_jax import methods
from rlfb_jax.bin import evaluate, flags, launch, report, sweep
from rlfb_jax.core.config import flag_name
from rlfb_jax.methods import plan
from rlfb_jax.methods.config import HOUSEKEEPING
from rlfb_jax.methods.family import flags_of, sweepable
from rlfb_jax.training import placement
from rlfb_jax.training.run import make_environment

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'rlfb_jax' / 'docs').glob('*.md'))]
# Named by the first of them.
BETAS = {'sac_adam_beta2', 'ddpg_adam_beta1', 'ddpg_adam_beta2'}
# In place of what a reader has of their own.
READERS = {'"${SLURM_ARRAY_TASK_ID}/4"': '3/4', '$JOB_COMPLETION_INDEX': '3', '{}': '3'}
READERS |= {'/sweeps/sweep.toml': 'experiments/schedulers/sweep.toml'}


def commands(program):
  """`(page, arguments)` of each command line of a program."""
  found = []
  for page in PAGES:
    text = re.sub(r'\\\n\s*', ' ', page.read_text())
    for line in re.findall(rf'{program} ((?:-|runs/)[^`\n]*)', text):
      for theirs, ours in READERS.items():
        line = line.replace(theirs, ours)
      found.append((page.name, shlex.split(line, comments=True)))
  return [pytest.param(argv, id=f'{n}: {" ".join(argv)}') for n, argv in found]


@pytest.mark.parametrize('argv', commands('rlfb-train'))
def test_runs_can_be_started(argv):
  if argv == ['--help']:
    assert flags.wants_help(argv)
    return
  # A file that an earlier run has left, there or not.
  config = launch.parse([arg for arg in argv if 'flags.txt' not in arg])
  methods.check(config, make_environment(config))
  spread, split = placement.parse_mesh(config.run.mesh)
  assert config.run.num_seeds % spread == 0
  assert plan.num_envs(config) % split == 0


@pytest.mark.parametrize('argv', commands('rlfb-sweep'))
def test_sweeps_can_be_planned(argv, monkeypatch):
  monkeypatch.chdir(ROOT)
  if argv == ['--help']:
    assert flags.wants_help(argv)
    return
  command = sweep.parse(argv)
  for cell in command.sweep.cells():
    config = launch.parse(command.sweep.arguments(cell))
    methods.check(config, make_environment(config))


def test_reports_and_evaluations_have_the_flags_that_are_named():
  for param in commands('rlfb-report'):
    _, names = flags.parse_with_names(param.values[0], report.SECTIONS)
    assert names
  for param in commands('rlfb-evaluate'):
    evaluate.check(flags.parse(param.values[0], evaluate.SECTIONS))


def test_committed_reports_are_what_their_commands_make(tmp_path, monkeypatch):
  """Byte for byte: a page that looks older than the code is made anew."""
  text = (ROOT / 'rlfb_jax' / 'docs' / 'reports.md').read_text()
  _, told = re.sub(r'\\\n\s*', ' ', text).split('Three examples are made')
  monkeypatch.chdir(ROOT)
  made = []
  for line in re.findall(r'^    (.*)', told, re.MULTILINE):
    program, *words = shlex.split(line)
    if program == 'cd':
      monkeypatch.chdir(words[0])
      continue
    (out,) = (word for word in words if word.startswith('--out='))
    words[words.index(out)] = f'--out={tmp_path}'
    report.main([name for word in words for name in sorted(glob.glob(word)) or [word]])
    folder = pathlib.Path(out.partition('=')[2]).resolve()
    made.append(folder.name)
    for path in folder.iterdir():
      if path.is_file():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path
  assert made == ['push', 'ways', 'report_ratings']


def test_there_are_commands_on_the_pages():
  counts = {p: len(commands(f'rlfb-{p}')) for p in ('train', 'sweep', 'report')}
  assert counts['train'] > 15
  assert counts['sweep'] > 5
  assert counts['report'] >= 1


def test_numbers_that_keep_runs_apart_are_named():
  text = (ROOT / 'rlfb_jax' / 'docs' / 'sweeping.md').read_text()
  text = text.split('## Which numbers share a program')[1].split('\n## ')[0]
  apart = {
    flag
    for flag, value in flags_of(methods.Config()).items()
    if isinstance(value, float) and flag not in {*sweepable(), *HOUSEKEEPING}
  }
  assert len(apart) > 10
  # One that shares a program is none of the list's.
  (listed,) = re.findall(r'So are:\n(.*?)\n\n', text, re.DOTALL)
  assert apart - set(re.findall(r'\w+', listed)) == BETAS
  assert not set(re.findall(r'`(\w+)`', listed)) & (set(sweepable()) - {'kl_weights'})


def known_flags():
  names = {
    flag_name(section, field.name)
    for sections in (methods.SECTIONS, report.SECTIONS, evaluate.SECTIONS)
    for section, options in sections.items()
    for field in dataclasses.fields(options)
  }
  return names | {*sweep.FLAGS, 'preset', 'flagfile', 'help'}


# Programs whose flags are none of ours, or are tested with the scripts themselves.
OTHERS = re.compile(
  r'experiments/|benchmarks/|\.py\b|pip|apt-get|docker|SBATCH|srun|parallel|XLA_FLAGS'
)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_flags_that_are_spoken_of_are_there(page):
  text = re.sub(r'\\\n\s*', ' ', page.read_text())
  blocks = re.findall(r'```.*?\n(.*?)```', text, re.DOTALL)
  spans = re.findall(r'`([^`]+)`', re.sub(r'```.*?```', '', text, flags=re.DOTALL))
  code = [*spans, *(line for block in blocks for line in block.splitlines())]
  ours = '\n'.join(part for part in code if not OTHERS.search(part))
  told = re.findall(r'(?<![\w-])--([a-z]\w*)(?![\w.])', ours)
  assert set(told) - known_flags() - {'scale'} == set()


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
  for target in re.findall(r'\]\(([^)#]+)', page.read_text()):
    if not target.startswith('http'):
      assert (page.parent / target).exists(), target
