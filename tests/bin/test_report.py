"""rlfb-report from the command line."""

import os
import pathlib
import subprocess
import sys

import pytest

from rlfb_jax.bin import report
from tests.reports.fake_runs import write_run

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_runs_become_a_page_and_tables(tmp_path, capsys):
  write_run(tmp_path / 'a')
  write_run(tmp_path / 'b', method='ppo', seeds=(0, 1))
  out = tmp_path / 'out'
  report.main([str(tmp_path / 'a'), f'--out={out}', str(tmp_path / 'b')])
  said = capsys.readouterr()
  assert said.out.strip() == str(out / 'index.html')
  assert 'ppo on walker_walk: seeds 2, which other arms have, are missing.' in said.err
  names = {path.name for path in out.iterdir()}
  kinds = {f'{t}.{e}' for t in ('scores', 'comparisons') for e in ('csv', 'md', 'tex')}
  assert names == {'index.html', 'seeds.csv', 'curves.csv'} | kinds
  assert '<h1>ppo, rbrl on walker_walk</h1>' in (out / 'index.html').read_text()


@pytest.mark.parametrize('form', ['--{}={}', '--{} {}', '-{} {}'])
def test_flags_have_their_values_in_either_form_between_runs(form, tmp_path):
  for name in ('a', 'b'):
    write_run(tmp_path / name)
  out = str(tmp_path / 'out')
  given = {'title': 'X', 'out': out}
  title, folder = (form.format(*item).split() for item in given.items())
  report.main([str(tmp_path / 'a'), *title, str(tmp_path / 'b'), *folder])
  assert '<h1>X</h1>' in (tmp_path / 'out' / 'index.html').read_text()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], 'No runs are named'),
    (['nowhere'], 'is not there'),
    (['x', '--ot=y'], '--out'),
    (['x', '--title'], 'title'),
  ],
)
def test_mistakes_are_one_sentence(arguments, message, capsys):
  with pytest.raises(SystemExit) as ended:
    report.main(arguments)
  assert ended.value.code == 1
  error = capsys.readouterr().err
  assert message in error
  assert error.count('\n') == 1


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
  write_run(tmp_path / 'a')
  out = tmp_path / 'out'
  out.touch()
  with pytest.raises(SystemExit) as ended:
    report.main([str(tmp_path / 'a'), f'--out={out}'])
  assert ended.value.code == 1
  assert capsys.readouterr().err == (
    f'rlfb-report: --out={out} cannot be written to (File exists); name another'
    ' folder.\n'
  )


def test_help_lists_its_flags(capsys):
  report.main(['--help'])
  assert '--title' in capsys.readouterr().out


def test_a_report_is_written_where_nobody_can_be_told_of_problems(tmp_path):
  write_run(tmp_path / 'a', finished=False, total_env_steps=2000)
  with open('/dev/full', 'w') as full:
    done = subprocess.run(
      [sys.executable, '-m', 'rlfb_jax.bin.report', 'a', '--out=out'],
      env=os.environ | {'PYTHONPATH': str(ROOT)},
      cwd=tmp_path,
      stdout=subprocess.PIPE,
      stderr=full,
      text=True,
      check=False,
      timeout=120,
    )
  assert (done.returncode, done.stdout) == (0, 'out/index.html\n')
