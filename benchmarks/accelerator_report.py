"""Tables from the raw samples of `accelerator.py`, as Markdown.

python benchmarks/accelerator_report.py benchmarks/results/accelerator.json
"""

import sys
from collections.abc import Sequence
from typing import Any

from figures import Results
from measure import Summary, name_of, summarize
from report import circumstances, read_samples, table

ENGINES = ('native', 'mjx')
PRECISIONS = ('float32', 'tensorfloat32')
ANY = 'any kernel'  # Not only those that give the same bits every time.
METHODS = ('ppo', 'rbrl_kl')


def markdown(results: Results) -> str:
  """All tables that the samples give; a run that was cut short has fewer."""
  sections = {
    f'Physics of {results["task"]}, inside a program': _physics(results),
    'One update of SAC': _updates(results),
    "MRN's bi-level step": _bilevel(results),
    'Methods on C MuJoCo, labelling sessions apart': _methods(results),
  }
  parts = [
    *circumstances('On an accelerator', results, results['device']['kind']),
    'Medians [smallest-largest] over rounds in which the pieces of a row, or of a size,'
    ' take turns. Programs compiled while the clock ran:'
    f' {sum(group["compiled"] for group in results["groups"])} (wanted: 0).',
    *(f'## {head}\n\n{text}' for head, text in sections.items() if text),
  ]
  return '\n\n'.join(parts) + '\n'


def _of_part(results: Results, part: str) -> list[dict[str, Any]]:
  return [group for group in results['groups'] if group['part'] == part]


def _rate(samples: Sequence[float]) -> Summary:
  return summarize([1.0 / s for s in samples])


def _milliseconds(samples: Sequence[float], digits: int = 3) -> str:
  return summarize([1e3 * s for s in samples]).text(digits)


def _physics(results: Results) -> str:
  rows = [
    [engine, group['label'], _rate(group['seconds'][engine]).text()]
    for engine in ENGINES
    for group in _of_part(results, engine)
  ]
  return table(['engine', 'environments', 'control steps/s'], rows)


def _updates(results: Results) -> str:
  rows = []
  for group in _of_part(results, 'updates'):
    flops = results['flops'][group['label']]
    for precision in PRECISIONS:
      alone = group['seconds'][f'products sac, {precision}']
      rows.append(
        _update(group['label'], precision, f'products alone, {ANY}', alone, flops)
      )
      for way in (precision, f'{precision}, {ANY}'):
        for seeds in results['seeds']:
          name = name_of('sac', seeds)
          own = group['seconds'].get(f'{name}, {way}')
          if own:
            rows.append(_update(group['label'], way, name, own, flops))
  return table(['networks', 'precision', '', 'ms per update', 'TFLOP/s'], rows)


def _update(
  label: str, way: str, name: str, seconds: Sequence[float], flops: float
) -> list[str]:
  rate = flops / summarize(seconds).median / 1e12
  return [label, way, name, _milliseconds(seconds), f'{rate:.2f}']


def _bilevel(results: Results) -> str:
  rows = [
    [name, _milliseconds(samples)]
    for group in _of_part(results, 'bilevel')
    for name, samples in group['seconds'].items()
  ]
  return table(['', 'ms'], rows)


def _methods(results: Results) -> str:
  rows = [
    [group['label'], *(_rate(group['seconds'][method]).text() for method in METHODS)]
    for group in _of_part(results, 'methods')
  ]
  return table(['seeds', *(f'{method}, control steps/s' for method in METHODS)], rows)


def main(argv: Sequence[str]) -> None:
  """Prints the tables of a file."""
  results = read_samples(argv, 'accelerator_report.py', 'accelerator.json', 'groups')
  print(markdown(results), end='')


if __name__ == '__main__':
  main(sys.argv[1:])
