"""What an off-policy update costs, and how much of that is matrix products.

  python benchmarks/updates.py              # everything, about 25 minutes
  python benchmarks/updates.py --only=ten_seeds,reward
  python benchmarks/updates.py --quick      # sizes for tests, numbers worthless

Measured are updates of SAC and DDPG at three sizes and brax's beside them, one
iteration of SAC and of PEBBLE (environment step, label, update), MRN's bi-level step,
a pass of the reward's fit, and relabelling; each takes turns with the plain matrix
products of its shapes. Whole runs are put together from these parts. Ten seeds in one
program take turns with one seed; ten that relabel a million transitions each are a
part of their own (`million`), which needs 5 GiB.

Raw samples go to `--out` as they come, by default to `benchmarks/results` where all is
measured at full size, else to `runs/benchmarks`; the tables beside it, as Markdown, are
made from that file alone (`python benchmarks/update_report.py FILE`). Nothing else
should run meanwhile.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import command_line
import products
import update_report
import update_workloads as workloads
from measure import warn_of_load
from taking_turns import Piece, measure
from update_workloads import QUICK_SIZES, SIZES, Size

from rlfb_jax import envs, methods
from rlfb_jax.bin import launch
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.training import manifest

PARTS = ('updates', 'steps', 'bilevel', 'reward', 'ten_seeds', 'million')
SEEDS = 10
# Of groups in which many seeds take part: one call of theirs often takes longer, and
# then each piece has two rounds.
MANY_SECONDS = 12.0
FRESH = '--replay_fresh_labels=true'
SEGMENT_STEPS = 50

Make = Callable[[], list[Piece]]


class Scale(NamedTuple):
  """How much is measured.

  Attributes:
    sizes: the first is the one that whole runs are put together for.
    stepped: names of the sizes whose iterations and bi-level steps are timed, on
      walker's observations.
    rewarded: names of the sizes whose reward model is timed: its networks are the same
      everywhere, observations and actions are not.
    seeds: many.
    labels: of the reward's fit, and the passes in one call.
    labels_of_many: the same where many seeds are compared with one, by size.
    relabelled: transitions, ascending.
    chunk_steps: iterations in one chunk, by size.
    steps_of_many: the same where many seeds are compared with one.
    reward_flags: of the reward model whose fit is timed.
    seconds: factor of all budgets.
  """

  sizes: Sequence[Size]
  stepped: Sequence[str]
  rewarded: Sequence[str]
  seeds: int
  labels: dict[int, int]
  labels_of_many: dict[str, dict[int, int]]
  relabelled: tuple[int, ...]
  chunk_steps: dict[str, int]
  steps_of_many: dict[str, int]
  reward_flags: tuple[str, ...]
  seconds: float


FULL = Scale(
  sizes=SIZES,
  stepped=('walker', 'metaworld', 'small'),
  rewarded=('walker', 'metaworld'),
  seeds=SEEDS,
  labels={100: 5, 1000: 2},
  labels_of_many={'walker': {100: 2, 1000: 1}, 'metaworld': {100: 2}},
  relabelled=(100_000, 1_000_000),
  chunk_steps={'walker': 20, 'metaworld': 100, 'small': 200},
  steps_of_many={'walker': 10, 'metaworld': 50, 'small': 100},
  reward_flags=(),
  seconds=1.0,
)
QUICK = Scale(
  sizes=QUICK_SIZES,
  stepped=('walker',),
  rewarded=('walker',),
  seeds=2,
  labels={100: 1},
  labels_of_many={'walker': {100: 1}},
  relabelled=(1_000, 2_000),
  chunk_steps={'walker': 20},
  steps_of_many={'walker': 10},
  reward_flags=('--reward_hidden_size=8', '--reward_hidden_layers=1'),
  seconds=0.002,
)


class Group(NamedTuple):
  """Pieces that take turns: made only when their turn comes, dropped after it.

  Attributes:
    label: as in the results.
    size: of the agent.
    make: the pieces.
    budget: seconds for all rounds, at full scale.
  """

  label: str
  size: Size
  make: Make
  budget: float

  @property
  def facts(self) -> dict[str, str]:
    """What tells it from other groups."""
    return {'label': self.label, 'size': self.size.name}


def groups(scale: Scale, parts: Sequence[str]) -> list[Group]:
  """All that is to be measured, in order."""
  found = []
  for size in scale.sizes:
    if 'updates' in parts:
      found += _updates(scale, size)
    if 'steps' in parts and size.name in scale.stepped:
      found.append(_iterations(scale, size))
    if 'bilevel' in parts and size.name in scale.stepped:
      found.append(_bilevel(scale, size))
    if 'ten_seeds' in parts and size.name in scale.stepped:
      found += _steps_of_many(scale, size)
  for size in scale.sizes:
    if 'reward' in parts and size.name in scale.rewarded:
      found += _reward(scale, size)
    if 'ten_seeds' in parts and size.name in scale.rewarded:
      found += _reward_of_many(scale, size)
  if 'million' in parts:
    found.append(_relabelling_of_many(scale, scale.sizes[0], scale.relabelled[-1]))
  return [group._replace(budget=group.budget * scale.seconds) for group in found]


def _updates(scale: Scale, size: Size) -> list[Group]:
  """Updates of one seed, brax's beside them, and of many."""
  agents = 'sac', 'ddpg'

  def one_seed() -> list[Piece]:
    return [
      *(workloads.updates(agent, size, 1) for agent in agents),
      workloads.brax_updates(size),
      *(workloads.update_products_of(agent, size) for agent in agents),
    ]

  def many_seeds() -> list[Piece]:
    return [
      *(workloads.updates('sac', size, seeds) for seeds in (1, scale.seeds)),
      workloads.update_products_of('sac', size),
    ]

  return [
    Group('updates', size, one_seed, 24 if _large(size) else 12),
    Group('updates of many seeds', size, many_seeds, 30 if _large(size) else 20),
  ]


def _iterations(scale: Scale, size: Size) -> Group:
  """An environment step with its update: SAC, PEBBLE, and PEBBLE without stored labels.

  At the size that whole runs are put together for, the steps before learning too.
  """
  steps = scale.chunk_steps[size.name]

  def make() -> list[Piece]:
    learned, asked_anew = {'pebble': 'learn'}, {'pebble, fresh labels': 'learn'}
    if size == scale.sizes[0]:
      learned |= {'random actions': 'random', 'pebble explore': 'explore'}
    return [
      *workloads.iterations('sac', size, steps, {'sac step': 'learn'}),
      *workloads.iterations('pebble', size, steps, learned),
      *workloads.iterations('pebble', size, steps, asked_anew, FRESH),
    ]

  return Group('iterations', size, make, 60 if _large(size) else 10)


def _bilevel(scale: Scale, size: Size) -> Group:
  """MRN's event between two chunks, and an update to compare it with."""

  def make() -> list[Piece]:
    steps = workloads.bilevel_steps(size, scale.relabelled[0])
    return [*steps, workloads.updates('sac', size, 1)]

  return Group('bi-level steps', size, make, 16 if _large(size) else 8)


def _steps_of_many(scale: Scale, size: Size) -> list[Group]:
  """PEBBLE's iteration and MRN's bi-level step, of one seed and of many."""
  seeds = 1, scale.seeds
  steps, rows = scale.steps_of_many[size.name], scale.relabelled[0]

  def iterations() -> list[Piece]:
    phases = {'pebble': 'learn'}
    return workloads.iterations('pebble', size, steps, phases, seeds=seeds)

  def bilevel() -> list[Piece]:
    return workloads.bilevel_steps_of_seeds(size, rows, seeds)

  return [
    Group('iterations of many seeds', size, iterations, MANY_SECONDS),
    Group('bi-level steps of many seeds', size, bilevel, MANY_SECONDS),
  ]


def _reward(scale: Scale, size: Size) -> list[Group]:
  """Passes of the reward's fit, and rewriting what transitions are paid."""
  reward = reward_options(scale)

  def fits() -> list[Piece]:
    rows = 2 * SEGMENT_STEPS * reward.minibatch_size
    return [
      *(
        workloads.reward_fit(reward, size, labels, SEGMENT_STEPS, passes)
        for labels, passes in scale.labels.items()
      ),
      workloads.reward_products(reward, size, rows, trains=True),
    ]

  def relabelling() -> list[Piece]:
    rows = workloads.replay_lib.CHUNK_ROWS
    return [
      *workloads.relabelling(reward, size, scale.relabelled),
      workloads.reward_products(reward, size, rows, trains=False),
    ]

  share = 1 if size == scale.sizes[0] else 2
  return [
    Group('reward fits', size, fits, 24 / share),
    Group('relabelling', size, relabelling, 16 / share),
  ]


def _reward_of_many(scale: Scale, size: Size) -> list[Group]:
  """The same of one seed and of many."""
  reward = reward_options(scale)

  def fits() -> list[Piece]:
    return [
      workloads.reward_fit(reward, size, labels, SEGMENT_STEPS, passes, seeds)
      for labels, passes in scale.labels_of_many[size.name].items()
      for seeds in (1, scale.seeds)
    ]

  return [
    Group('reward fits of many seeds', size, fits, MANY_SECONDS),
    _relabelling_of_many(scale, size, scale.relabelled[0]),
  ]


def _relabelling_of_many(scale: Scale, size: Size, rows: int) -> Group:
  reward = reward_options(scale)

  def relabelling() -> list[Piece]:
    return [
      piece
      for seeds in (1, scale.seeds)
      for piece in workloads.relabelling(reward, size, [rows], seeds)
    ]

  return Group(f'relabelling {rows:,} of many seeds', size, relabelling, MANY_SECONDS)


def _large(size: Size) -> bool:
  return size.hidden_size >= 1024


def reward_options(scale: Scale) -> RewardOptions:
  """Of PEBBLE's preset."""
  return launch.parse(['--preset=pebble_walker', *scale.reward_flags]).reward


def products_facts(scale: Scale) -> dict[str, Any]:
  """Which products belong to which part, how many times, and their operations."""
  reward = reward_options(scale)
  flops = {
    f'{size.name} products {agent}': products.count_flops(
      workloads.passes_of(agent, size), size.batch_size
    )
    for size in scale.sizes
    for agent in ('sac', 'ddpg')
  }
  chunk = workloads.replay_lib.CHUNK_ROWS
  belonging: dict[str, tuple[str, float]] = {}
  for name, trains, rows in (
    ('products of training', True, 2 * SEGMENT_STEPS * reward.minibatch_size),
    ('products of relabelling', False, chunk),
  ):
    for size in scale.sizes:
      passes = workloads.reward_passes(reward, size, trains)
      flops[f'{size.name} {name}'] = products.count_flops(passes, rows)
    parts = (
      {f'pass over {n:,} labels': n / reward.minibatch_size for n in scale.labels}
      if trains
      else {f'relabelling {n:,}': n / chunk for n in scale.relabelled}
    )
    belonging |= {part: (name, times) for part, times in parts.items()}
  return {'flops': flops, 'reward_products': belonging}


def plans() -> dict[str, dict[str, Any]]:
  """What whole runs of the presets are made of; nothing is run."""
  found = {}
  for method in ('sac', 'pebble', 'mrn'):
    preset = 'mrn_walker' if method == 'mrn' else 'pebble_walker'
    config = launch.parse([f'--preset={preset}', f'--method={method}'])
    algorithm = methods.make(config, envs.make('walker_walk', engine='native'))
    chunk = algorithm.steps_per_chunk
    starts = range(0, config.total_env_steps, chunk)
    phases = [algorithm.phase(t) for t in starts]
    events = [(t, name) for t in starts for name in algorithm.events_due(t)]
    catch_up = sum(name == 'begin_learning' for _, name in events)
    found[method] = {
      'total': config.total_env_steps,
      'random': chunk * phases.count('random'),
      'explore': chunk * phases.count('explore'),
      'sessions': [t for t in starts if algorithm.request(t)],
      'outer': [t for t, name in events if name == 'outer_step'],
      'catch_up': catch_up * config.replay.catch_up_updates,
      'passes': config.reward.max_passes,
    }
  return found


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """The command line; ends with a sentence where it is wrong."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--only', default=','.join(PARTS), help='parts to measure, comma-separated')
  command_line.add_out(parser, 'updates')
  add('--quick', action='store_true', help='sizes for tests: seconds, worthless')
  options = parser.parse_args(argv)
  options.only = command_line.split(parser, 'only', options.only, PARTS)
  whole = not options.quick and set(options.only) == set(PARTS)
  options.out = command_line.out_path(options.out, 'updates', whole)
  return options


def main(argv: Sequence[str]) -> None:
  """Measures, saves, reports."""
  options = parse(argv)
  scale = QUICK if options.quick else FULL
  facts = {
    **manifest.make(),
    'load_average': warn_of_load(),
    'sizes': {size.name: size.text for size in scale.sizes},
    'main_size': scale.sizes[0].name,
    'seeds': scale.seeds,
    'steps_of_many': scale.steps_of_many,
    'relabelled': scale.relabelled,
    **products_facts(scale),
    'plans': plans(),
  }
  measure(groups(scale, options.only), facts, options.out, update_report.markdown)


if __name__ == '__main__':
  main(sys.argv[1:])
