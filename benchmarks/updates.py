"""What one gradient step costs, and all that comes with it, beside its products.

  python benchmarks/updates.py                     # everything, about 8 minutes
  python benchmarks/updates.py --only=updates,steps --minutes=3

Measured are updates of SAC and DDPG at three sizes, environment steps of SAC and
PEBBLE, MRN's bi-level step, passes of the reward fit and relabelling; beside updates
and the reward model, in turns, the matrix products that they cannot do without.
Whole runs are projected from these parts.

Raw samples go to `--out` as they come; the tables beside it, as Markdown, are made
from that file alone (`python benchmarks/update_report.py FILE`). Nothing else should
run meanwhile.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import passes
import projection
import rounds
import update_report
import update_workloads
from rounds import Program

from rlfb_jax.core.suggest import check_known
from rlfb_jax.training import manifest

PARTS = ('updates', 'steps', 'bilevel', 'reward')
_MEASURING = 0.5  # Share of the time; the rest is compilation.


class Measurement(NamedTuple):
  """Programs that take turns.

  Attributes:
    part: as in the file.
    size: likewise.
    seeds: trained together.
    weight: of the time, its share.
    make: builds the programs and says how many operations the products make, or 0.
  """

  part: str
  size: str
  seeds: int
  weight: float
  make: Callable[[], tuple[list[Program], int]]


class Scale(NamedTuple):
  """How large everything is.

  Attributes:
    sizes: of agents, by name.
    seeds: numbers of them, 1 first.
    reward_hidden: widths of the reward networks.
    labels: pairs in the reward fit -> passes in one call; a run's budget first.
    transitions: relabelled ones; what a run has in the mean first.
    capacity: of the replay buffer in a run.
  """

  sizes: dict[str, update_workloads.Size]
  seeds: tuple[int, ...]
  reward_hidden: tuple[int, ...]
  labels: dict[int, int]
  transitions: tuple[int, ...]
  capacity: int


FULL = Scale(
  sizes=update_workloads.SIZES,
  seeds=(1, 10),
  reward_hidden=update_workloads.REWARD_HIDDEN,
  labels={100: 5, 1000: 1},
  transitions=(100_000, 1_000_000),
  capacity=1_000_000,
)
QUICK = Scale(
  sizes=update_workloads.QUICK_SIZES,
  seeds=(1, 2),
  reward_hidden=update_workloads.QUICK_REWARD_HIDDEN,
  labels={10: 2},
  transitions=(64,),
  capacity=128,
)


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """The command line; ends with a sentence where it is wrong."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--only', default=','.join(PARTS), help='parts to measure, comma-separated')
  add('--minutes', type=float, default=8.0, help='to spend, about')
  add('--out', default='benchmarks/results/updates.json', help='raw samples')
  add(
    '--quick', action='store_true', help='sizes for tests: seconds, numbers worthless'
  )
  options = parser.parse_args(argv)
  options.only = options.only.split(',')
  try:
    for part in options.only:
      check_known('--only', part, PARTS)
  except ValueError as error:
    parser.error(str(error))
  if options.minutes <= 0:
    parser.error(f'--minutes={options.minutes:g} must be more than 0; try 8.')
  return options


def measurements(scale: Scale, parts: Sequence[str]) -> list[Measurement]:
  """All that is to be measured, in order."""
  found = []
  if 'updates' in parts:
    found += [
      _update(agent, name, size, seeds)
      for agent in ('sac', 'ddpg')
      for name, size in scale.sizes.items()
      for seeds in scale.seeds
    ]
  hidden = scale.reward_hidden
  flags = (f'--reward_hidden_size={hidden[0]}', f'--reward_hidden_layers={len(hidden)}')
  for name, size in scale.sizes.items():
    if size.chunk_steps:
      runs = _once(lambda size=size: update_workloads.Runs(size, flags))
      found += _loops(scale, parts, name, runs)
  if 'reward' in parts:
    found += [
      Measurement(
        'reward',
        f'{labels} labels',
        1,
        1.0,
        lambda n=labels, p=num: update_workloads.fit_programs(hidden, n, p),
      )
      for labels, num in scale.labels.items()
    ]
    found += [
      Measurement(
        'reward',
        f'{count} transitions',
        1,
        1.0,
        lambda n=count: update_workloads.relabel_programs(hidden, n),
      )
      for count in scale.transitions
    ]
  return found


def _update(
  agent: str, name: str, size: update_workloads.Size, seeds: int
) -> Measurement:
  def make() -> tuple[list[Program], int]:
    programs = [update_workloads.updates(agent, size, seeds)]
    found = update_workloads.update_products(agent, size) if seeds == 1 else []
    return programs + found, passes.count_flops(update_workloads.passes_of(agent, size))

  return Measurement(agent, name, seeds, 2.0 if name == 'walker' else 1.0, make)


def _loops(
  scale: Scale,
  parts: Sequence[str],
  name: str,
  runs: Callable[[], update_workloads.Runs],
) -> list[Measurement]:
  """What needs a whole run's state."""
  makes = {
    'steps': (2.0, lambda: runs().steps()),
    'phases': (0.5, lambda: runs().phases()),
    'bilevel': (2.0, lambda: runs().bilevel(scale.transitions[0], scale.capacity)),
  }
  wanted = [*(('steps', 'phases') if 'steps' in parts else ())]
  wanted += ['bilevel'] if 'bilevel' in parts else []
  return [
    Measurement(part, name, 1, weight, lambda make=make: (make(), 0))
    for part in wanted
    for weight, make in [makes[part]]
  ]


def _once(make: Callable[[], Any]) -> Callable[[], Any]:
  """Makes it when first asked for, and keeps it."""
  kept: list[Any] = []

  def get() -> Any:
    if not kept:
      kept.append(make())
    return kept[0]

  return get


def _describe(size: update_workloads.Size) -> str:
  hidden = f'{size.hidden[0]} x {len(size.hidden)}'
  return (
    f'{hidden}, batch {size.batch}, {size.observation_size} observed,'
    f' {size.action_size} acted'
  )


def main(argv: Sequence[str]) -> None:
  """Measures, saves, reports."""
  options = parse(argv)
  scale = QUICK if options.quick else FULL
  out = pathlib.Path(options.out)
  results: dict[str, Any] = {
    **manifest.make(),
    'load_average': os.getloadavg()[0],
    'sizes': {name: _describe(size) for name, size in scale.sizes.items()},
    'whole_runs': {
      'fit': next(iter(scale.labels)),
      'relabelling': scale.transitions[0],
    },
    'plans': {
      name: dataclasses.asdict(projection.make_plan(preset))
      for name, preset in projection.RUNS.items()
    },
    'flops': {},
    'samples': [],
  }
  if results['load_average'] > 0.5:
    print(
      f'load average is {results["load_average"]:.1f}: something else runs here, and'
      ' the numbers will show it.',
      file=sys.stderr,
    )
  todo = measurements(scale, options.only)
  total = sum(m.weight for m in todo)
  seconds = 0.2 if options.quick else 60 * options.minutes * _MEASURING
  clock = rounds.Clock([m.weight for m in todo], 60 * options.minutes)
  out.parent.mkdir(parents=True, exist_ok=True)
  for m in todo:
    seeds = f', {m.seeds} seeds' if m.seeds > 1 else ''
    clock.announce(f'{m.part} {m.size}{seeds}')
    programs, flops = m.make()
    results['flops'][f'{m.part} {m.size}'] = flops
    for name, samples in rounds.alternate(programs, seconds * m.weight / total).items():
      facts = {'part': m.part, 'size': m.size, 'seeds': m.seeds, 'name': name}
      results['samples'].append({**facts, **samples._asdict()})
    results['minutes'] = round(clock.seconds / 60, 1)
    out.write_text(json.dumps(results, indent=1) + '\n')
  text = update_report.markdown(results)
  out.with_suffix('.md').write_text(text)
  print(text)


if __name__ == '__main__':
  main(sys.argv[1:])
