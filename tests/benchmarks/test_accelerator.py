"""The benchmark of accelerators: that it runs, and that its tables are its samples."""

import json
import pathlib

import accelerator
import accelerator_report
import jax
import measure
from jax.lax import Precision
from taking_turns import take_turns

from tests.core.programs import products

RESULTS = pathlib.Path(accelerator.__file__).parent / 'results'


def test_the_tables_that_are_kept_are_those_of_the_samples_that_are_kept():
  text = (RESULTS / 'accelerator.md').read_text()
  samples = json.loads((RESULTS / 'accelerator.json').read_text())
  assert accelerator_report.markdown(samples) == text


def test_it_runs_and_its_rows_are_what_was_asked_for(tmp_path, capsys):
  out = tmp_path / 'accelerator.json'
  accelerator.main(['--quick', '--only=native', f'--out={out}'])
  results = json.loads(out.read_text())
  (group,) = results['groups']
  assert (group['part'], group['label'], group['compiled']) == ('native', '2', 0)
  text = out.with_suffix('.md').read_text()
  assert text in capsys.readouterr().out
  assert '| native | 2 | ' in text
  assert "MRN's bi-level step" not in text  # Which was not measured.


def test_full_size_has_every_part_and_less_has_less():
  scale = accelerator.FULL
  parts = [g.part for g in accelerator.groups(scale, accelerator.PARTS)]
  assert list(dict.fromkeys(parts)) == list(accelerator.PARTS)
  options = accelerator.parse(['--sizes=small', '--seeds=10', '--seconds=2', '--out=x'])
  less = accelerator.scale_of(options)
  assert [size.name for size in less.sizes] == ['small']
  assert (less.seeds, less.seconds) == ((10,), 2.0)


def test_updates_are_compiled_in_the_precision_that_they_are_named_by(monkeypatch):
  seen = []
  ones = jax.numpy.ones((2, 2))

  def alone(agent, size):
    def run(n):
      seen.extend(products(jax.make_jaxpr(lambda a, b: a @ b)(ones, ones).jaxpr))

    return accelerator.Piece(f'products {agent}', run)

  def updates(agent, size, count, jit):
    seen.extend(products(jax.make_jaxpr(jit(lambda a, b: a @ b))(ones, ones).jaxpr))
    return accelerator.Piece(agent, lambda n: None)

  monkeypatch.setattr(accelerator.update_workloads, 'update_products_of', alone)
  monkeypatch.setattr(accelerator.update_workloads, 'updates', updates)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  monkeypatch.setattr(jax, 'jit', lambda function, **settings: function)
  pieces = accelerator.updates(accelerator.QUICK.sizes[0], (1,))
  for piece in pieces:
    piece.run(1)
  assert [piece.name for piece in pieces] == [
    'products sac, float32',
    'sac, float32',
    'products sac, tensorfloat32',
    'sac, tensorfloat32',
    'sac, tensorfloat32, any kernel',
  ]
  # Three updates as they are made, then the products of each precision as they run.
  exact, coarse = Precision.HIGHEST, Precision.HIGH
  wanted = exact, coarse, coarse, exact, coarse
  assert seen == [(precision, precision) for precision in wanted]


def test_a_budget_of_nothing_only_compiles():
  calls = []
  piece = accelerator.Piece('x', calls.append)
  take_turns([piece], 0.0, measure.Compilations())
  assert calls == [1] * 3  # Compiled, and the fewest rounds.
