"""Tables from the raw samples of `updates.py`, as Markdown.

python benchmarks/update_report.py benchmarks/results/updates.json
"""

import json
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import passes
import projection
from measure import Summary, summarize
from report import table

from rlfb_jax.core.replay import CHUNK_ROWS

Results = dict[str, Any]

# Milliseconds, on two cores of the same kind.
PUBLISHED_UPDATES = (
  ('brax 0.14', '2.2', '82'),
  ('sbx', '2.2', '98'),
  ('stable-baselines3', '9', '235'),
  ("MRN's released code", '6-9', '212-252'),
)
# What -> slow and fast, with and without MKL's fast path on AMD processors.
MRN_CODE = {
  'bi-level step': (645.0, 288.0),
  'one epoch of 100 labels': (160.0, 84.0),
  'relabelling 100,000 transitions': (625.0, 296.0),
}

NOTES = (
  'Products: the float32 matrix products that an update cannot do without, of the'
  ' same shapes, alone in a compiled loop, the fastest of three ways to write them:'
  ' forward through actor and target critics for the targets; forward, weight'
  ' gradients and gradients of hidden layers for critics and actor; forward and the'
  ' gradient of the action through the critics that lead the actor, whose weights'
  ' have none there. Biases, activations, Adam, Polyak averages and draws come on top.',
  'A share is the time of the products over the time of the whole.',
  'Steps are taken on walker_walk in C MuJoCo, one environment, with the observations'
  ' and actions of walker at both sizes; a step is acting, stepping, storing, drawing'
  ' a batch, paying for it and one update.',
  'A pass of the reward fit pads its last minibatch to 128 pairs; the products are'
  ' those of the real labels.',
)


class Found:
  """Access to the samples."""

  def __init__(self, results: Results):
    self._samples = {
      (s['part'], s['size'], s['seeds'], s['name']): s['seconds']
      for s in results['samples']
    }

  def ms(self, part: str, size: str, name: str, seeds: int = 1) -> list[float]:
    """Milliseconds per unit, one value a round; empty where not measured."""
    return [1e3 * s for s in self._samples.get((part, size, seeds, name), ())]

  def median(self, part: str, size: str, name: str) -> float:
    """Median in milliseconds at one seed; NaN where it was not measured."""
    found = self.ms(part, size, name)
    return summarize(found).median if found else math.nan

  def products(self, part: str, size: str) -> tuple[float, str]:
    """The fastest way of writing the products: median in milliseconds, and its name."""
    return min((self.median(part, size, way), way) for way in passes.WAYS)

  def keys(self, part: str) -> list[tuple[str, int, str]]:
    """`(size, seeds, name)` of what was measured, products left out."""
    return [k[1:] for k in self._samples if k[0] == part and k[3] not in passes.WAYS]


def markdown(results: Results) -> str:
  """All tables that the samples give."""
  found = Found(results)
  parts = [
    _circumstances(results),
    _section('Updates', _updates(results, found)),
    _section('Environment steps', _steps(found)),
    _section("MRN's bi-level step", _bilevel(found)),
    _section('Reward model', _reward(results, found)),
    _section('Whole runs', _runs(results, found)),
    _section('Beside published code', _published(found)),
    '\n'.join(f'- {note}' for note in NOTES),
  ]
  return '\n\n'.join(part for part in parts if part) + '\n'


def _section(title: str, body: str) -> str:
  return f'## {title}\n\n{body}' if body else ''


def _circumstances(results: Results) -> str:
  said = ', '.join(f'{k} {v}' for k, v in results['versions'].items() if v)
  sizes = '; '.join(f'{name}: {text}' for name, text in results['sizes'].items())
  return (
    f'# Updates\n\n`{" ".join(results["command"])}`, {results["started"]},'
    f' {results.get("minutes", 0)} minutes.\n\n{results["processor"]},'
    f' {results["cores"]} cores, load average {results["load_average"]:.2f} before.'
    f' {said}.\n\nSizes: {sizes}.\n\nMedians [smallest-largest] in milliseconds, over'
    ' rounds in which everything in a row of measurements takes its turn; float32.'
  )


def _text(samples: Sequence[float]) -> str:
  summary = summarize(samples)
  return summary.text(2 if summary.median < 10 else 1 if summary.median < 1000 else 0)


def _updates(results: Results, found: Found) -> str:
  rows = []
  for part, size, seeds, name in (
    (part, *key) for part in ('sac', 'ddpg') for key in found.keys(part)
  ):
    flops = results['flops'][f'{part} {size}']
    alone, way = found.products(part, size)
    took = found.ms(part, size, name, seeds)
    rows.append(
      [
        part.upper(),
        size,
        str(seeds),
        _text(took),
        f'{flops / 1e9:.2f}',
        f'{alone:.2f} ({way.removeprefix("products").strip(", ") or "plain"})',
        f'{flops / alone / 1e6:.0f}',
        f'{alone / summarize(took).median:.0%}',
      ]
    )
  head = ('', 'size', 'seeds', 'ms per seed-update', 'GFLOP')
  return table((*head, 'products alone, ms', 'GFLOP/s', 'share'), rows)


def _steps(found: Found) -> str:
  rows = []
  for size in dict.fromkeys(key[0] for key in found.keys('steps')):
    sac, pebble = (found.ms('steps', size, f'{m} step') for m in ('sac', 'pebble'))
    ratios = summarize([p / s for p, s in zip(pebble, sac, strict=True)])
    early = [found.median('phases', size, f'{p} step') for p in ('random', 'explore')]
    rows.append(
      [size, _text(sac), _text(pebble), ratios.text(2), *(f'{t:.2f}' for t in early)]
    )
  head = ('size', 'SAC step', 'PEBBLE step', 'PEBBLE / SAC', 'random step')
  return table((*head, 'pre-training step'), rows)


def _bilevel(found: Found) -> str:
  rows = []
  for size, _, name in found.keys('bilevel'):
    if name == 'sac update':
      continue
    took = found.ms('bilevel', size, name)
    update = found.ms('bilevel', size, 'sac update')
    times = summarize([t / u for t, u in zip(took, update, strict=True)])
    rows.append([size, name, _text(took), times.text(1)])
  lines = [table(('size', '', 'ms', 'SAC updates'), rows)]
  for size in dict.fromkeys(key[0] for key in found.keys('bilevel')):
    whole = found.median('bilevel', size, 'bi-level step')
    unmeasured = 'bi-level step, supervised gradient unmeasured'
    without = found.median('bilevel', size, unmeasured)
    lines.append(
      f'{size}: measuring the supervised gradient (`--mrn_measure_supervised`) is'
      f' {1 - without / whole:.0%} of a step without relabelling.'
    )
  return '\n\n'.join(lines) if rows else ''


def _reward(results: Results, found: Found) -> str:
  rows = []
  for size, _, name in found.keys('reward'):
    took = found.ms('reward', size, name)
    alone, _ = found.products('reward', size)
    flops = results['flops'][f'reward {size}']
    what = 'one pass over' if name == 'reward fit' else 'relabelling'
    share = f'{alone / summarize(took).median:.0%}'
    rows.append(
      [f'{what} {size}', _text(took), f'{flops / 1e9:.1f}', f'{alone:.1f}', share]
    )
  return table(('', 'ms', 'GFLOP', 'products alone, ms', 'share'), rows)


def run_costs(results: Results, size: str, method: str) -> projection.Costs:
  """What the parts of a run take, medians; NaN for what was not measured."""
  found, whole = Found(results), results['whole_runs']

  def seconds(part: str, of: str, name: str) -> float:
    return found.median(part, of, name) / 1e3

  transitions = whole['relabelling']
  chunks = math.ceil(transitions / CHUNK_ROWS)
  learner = 'sac' if method == 'sac' else 'pebble'
  return projection.Costs(
    steps={
      'random': seconds('phases', size, 'random step'),
      'explore': seconds('phases', size, 'explore step'),
      'learn': seconds('steps', size, f'{learner} step'),
    },
    update=seconds('bilevel', size, 'sac update'),
    fit_pass=seconds('reward', f'{whole["fit"]} labels', 'reward fit'),
    relabel_chunk=seconds('reward', f'{transitions} transitions', 'relabelling')
    / chunks,
    bilevel=seconds('bilevel', size, 'bi-level step'),
  )


def _runs(results: Results, found: Found) -> str:
  rows = []
  for size in dict.fromkeys(key[0] for key in found.keys('steps')):
    totals: dict[str, float] = {}
    for method, plan in results['plans'].items():
      parts = projection.project(
        projection.Plan(**plan), run_costs(results, size, method)
      )
      if math.isnan(parts['total']):
        return ''
      totals[method] = parts['total']
      rest = parts['total'] - parts['steps']
      rows.append(
        [
          size,
          method,
          f'{parts["total"] / 3600:.2f}',
          f'{parts["total"] / totals["sac"]:.3f}',
          f'{rest:.0f} s',
          ', '.join(f'{n} {s:.0f} s' for n, s in parts.items() if 0 < s < rest),
        ]
      )
  if not rows:
    return ''
  mrn = results['plans']['mrn']
  head = ('size', '', 'hours', 'of sac', 'beside steps', 'of which')
  steps = sum(mrn['steps'].values())
  return (
    f'{table(head, rows)}\n\nProjected for one seed and {steps:,} environment steps:'
    ' a step of each phase, an update, a pass of the fit, a relabelled transition and'
    ' a bi-level step are measured above, and multiplied by how often the timetable'
    f' has them: {len(mrn["sessions"])} sessions with all {mrn["passes"]} passes that'
    ' they may make (most need fewer) and one more for choosing queries,'
    f' {mrn["catch_up"]} updates at once, {len(mrn["bilevel"])} bi-level steps, and a'
    ' relabelling after each with as many transitions as are held then. Evaluation is'
    ' left out.'
  )


def _published(found: Found) -> str:
  small, walker = (
    found.ms(part, size, 'sac update')
    for part, size in (('sac', 'small'), ('sac', 'walker'))
  )
  lines = []
  if small and walker:
    ours = ['**rlfb_jax**', _text(small), _text(walker)]
    head = ('ms per SAC update', '256 x 2, batch 256', '1024 x 2, batch 1024')
    lines.append(table(head, [ours, *map(list, PUBLISHED_UPDATES)]))
  timed = {
    'bi-level step': found.ms('bilevel', 'walker', 'bi-level step'),
    'one epoch of 100 labels': found.ms('reward', '100 labels', 'reward fit'),
    'relabelling 100,000 transitions': found.ms(
      'reward', '100000 transitions', 'relabelling'
    ),
  }
  rows = []
  for name, (slow, fast) in MRN_CODE.items():
    if timed[name]:
      took: Summary = summarize(timed[name])
      ratios = f'{slow / took.median:.1f} ({fast / took.median:.1f})'
      rows.append([name, _text(timed[name]), f'{slow:.0f} ({fast:.0f})', ratios])
  lines.append(table(('ms', 'rlfb_jax', "MRN's released code", 'times as fast'), rows))
  body = '\n\n'.join(line for line in lines if line)
  if not body:
    return ''
  return (
    f"{body}\n\nOthers' numbers were taken apart from this run, on two cores of the"
    " same kind; in brackets with PyTorch's MKL on its fast path, which it does not"
    ' take by itself on AMD processors.'
  )


def main(argv: Sequence[str]) -> None:
  """Prints the tables of a file."""
  print(markdown(json.loads(pathlib.Path(argv[0]).read_text())))


if __name__ == '__main__':
  main(sys.argv[1:])
