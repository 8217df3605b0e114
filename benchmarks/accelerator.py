"""What an accelerator gives: physics by the batch, updates by precision, whole methods.

  python benchmarks/accelerator.py              # everything
  python benchmarks/accelerator.py --only=updates --sizes=small --seeds=1
  python benchmarks/accelerator.py --seconds=0  # compiles all: to fill JAX's cache
  python benchmarks/accelerator.py --quick      # sizes for tests, numbers worthless

Measured are both engines from inside a compiled program, at several numbers of
environments; SAC's update and the plain matrix products of its shapes, each in float32
and in tensorfloat32, of one seed and of many; MRN's bi-level step; and chunks of PPO
and RbRL-KL as users run them, on C MuJoCo's cores beside the accelerator.

Raw samples go to `--out` as they come, by default to `benchmarks/results` where all is
measured at full size on an accelerator, else to `runs/benchmarks`; the tables beside
it, as Markdown, are made from that file alone
(`python benchmarks/accelerator_report.py FILE`). Nothing else should run meanwhile.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import accelerator_report
import command_line
import jax
import products
import update_workloads
import workloads
from accelerator_report import ANY, METHODS, PRECISIONS
from measure import warn_of_load
from taking_turns import Piece, measure
from update_workloads import QUICK_SIZES, SIZES, Size

from rlfb_jax import envs
from rlfb_jax.core.precision import with_precision
from rlfb_jax.training import manifest, program

PARTS = ('native', 'updates', 'bilevel', 'methods', 'mjx')
TASK = 'walker_walk'
STEPS = 20  # Of each environment, in one sample of physics.


class Scale(NamedTuple):
  """How much is measured.

  Attributes:
    num_envs: of physics, by engine.
    sizes: of SAC; the bi-level step has the first.
    seeds: side by side, of updates and methods.
    rows: transitions in the buffer of the bi-level step.
    ppo: its sizes.
    tiny: whether methods are asked for little, too.
    seconds: to measure each group.
  """

  num_envs: dict[str, tuple[int, ...]]
  sizes: tuple[Size, ...]
  seeds: tuple[int, ...]
  rows: int
  ppo: dict[str, int]
  tiny: bool
  seconds: float


FULL = Scale(
  num_envs={'native': (32, 320, 4096), 'mjx': (320, 4096)},
  sizes=tuple(size for size in SIZES if size.name in ('walker', 'small')),
  seeds=(1, 10),
  rows=100_000,
  ppo=workloads.SIZES,
  tiny=False,
  seconds=8.0,
)
QUICK = Scale(
  num_envs={'native': (2,), 'mjx': (2,)},
  sizes=QUICK_SIZES,
  seeds=(1, 2),
  rows=1_000,
  ppo=workloads.TINY_SIZES,
  tiny=True,
  seconds=0.02,
)


class Group(NamedTuple):
  """Pieces that take turns.

  Attributes:
    part: one of `PARTS`.
    label: which of them: environments, sizes of networks, or seeds.
    make: the pieces.
    budget: seconds for all rounds.
  """

  part: str
  label: str
  make: Callable[[], list[Piece]]
  budget: float

  @property
  def facts(self) -> dict[str, str]:
    """What tells it from other groups."""
    return {'part': self.part, 'label': self.label}


def groups(scale: Scale, parts: Sequence[str]) -> list[Group]:
  """All that is to be measured, in order."""
  size = scale.sizes[0]

  def group(
    part: str, label: str, make: Callable[..., list[Piece]], *args: Any
  ) -> Group:
    return Group(part, label, functools.partial(make, *args), scale.seconds)

  def moved_by(engine: str) -> list[Group]:
    counts = scale.num_envs[engine]
    return [group(engine, f'{count:,}', physics, engine, count) for count in counts]

  found = [
    *moved_by('native'),
    *(group('updates', s.text, updates, s, scale.seeds) for s in scale.sizes),
    group('bilevel', size.text, bilevel, size, scale.rows),
    *(group('methods', str(seeds), methods, scale, seeds) for seeds in scale.seeds),
    *moved_by('mjx'),
  ]
  return [one for one in found if one.part in parts]


def physics(engine: str, num_envs: int) -> list[Piece]:
  """Environment steps in one program."""
  env = envs.make(TASK, engine=engine)
  return [_piece(engine, workloads.env_steps(env, 1, num_envs, STEPS))]


def updates(size: Size, seeds: Sequence[int]) -> list[Piece]:
  """SAC's update and its products alone, in each precision.

  The updates are compiled as runs are; in the coarser precision with any kernel, too,
  whether or not it gives the same bits every time.
  """
  found = []
  for precision in PRECISIONS:
    ways = {precision: program.jit_with(precision)}
    if precision != PRECISIONS[0]:
      ways[f'{precision}, {ANY}'] = _any_kernel(precision)
    alone = update_workloads.update_products_of('sac', size)
    # The precision belongs to the call, too: the products are compiled in it.
    run = with_precision(alone.run, precision)
    found.append(alone._replace(name=f'{alone.name}, {precision}', run=run))
    for way, jit in ways.items():
      for count in seeds:
        piece = update_workloads.updates('sac', size, count, jit)
        found.append(piece._replace(name=f'{piece.name}, {way}'))
  return found


def _any_kernel(precision: str) -> program.Jit:
  def jit(function: Callable[..., Any], **kwargs: Any) -> Callable[..., Any]:
    return jax.jit(with_precision(function, precision), **kwargs)

  return jit


def bilevel(size: Size, rows: int) -> list[Piece]:
  """MRN's event between two chunks, and an update to compare it with."""
  jit = program.jit_with(PRECISIONS[0])
  steps = update_workloads.bilevel_steps(size, rows)
  return [*steps, update_workloads.updates('sac', size, 1, jit)]


def methods(scale: Scale, seeds: int) -> list[Piece]:
  """Chunks of learning after a session, as users run them but for the engine."""

  def piece(method: str) -> Piece:
    config = workloads.make_config(method, TASK, scale.ppo, scale.tiny)
    env = workloads.make_env(TASK, config, 1)
    training = workloads.Training(env, config, seeds)
    training.chunk()
    for request in training.sessions[:1]:
      training.session(request)
    training.chunk()
    return _piece(method, training.learn())

  return [piece(method) for method in METHODS]


def _piece(name: str, workload: workloads.Workload) -> Piece:
  def run(n: int) -> None:
    for _ in range(n):
      workload.run()

  return Piece(name, run, per=workload.env_steps)


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """The command line; ends with a sentence where it is wrong."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  sizes = [size.name for size in FULL.sizes]
  add('--only', default=','.join(PARTS), help='parts to measure, comma-separated')
  add('--sizes', default=','.join(sizes), help='networks, comma-separated')
  add('--seeds', default='1,10', help='of updates and methods, comma-separated')
  add('--seconds', type=float, default=FULL.seconds, help='to measure each group')
  command_line.add_out(parser, 'accelerator')
  add('--quick', action='store_true', help='sizes for tests: seconds, worthless')
  options = parser.parse_args(argv)
  options.only = command_line.split(parser, 'only', options.only, PARTS)
  options.sizes = command_line.split(parser, 'sizes', options.sizes, sizes)
  seeds = [str(count) for count in FULL.seeds]
  options.seeds = command_line.split(parser, 'seeds', options.seeds, seeds)
  command_line.check_at_least(parser, 'seconds', options.seconds, 0)
  whole = not options.quick and len(options.only) == len(PARTS)
  whole &= len(options.sizes) == len(sizes) and len(options.seeds) == len(seeds)
  whole &= options.seconds >= FULL.seconds and jax.default_backend() != 'cpu'
  options.out = command_line.out_path(options.out, 'accelerator', whole)
  return options


def scale_of(options: argparse.Namespace) -> Scale:
  """What the command line asks for."""
  if options.quick:
    return QUICK
  return FULL._replace(
    sizes=tuple(size for size in FULL.sizes if size.name in options.sizes),
    seeds=tuple(map(int, options.seeds)),
    seconds=options.seconds,
  )


def main(argv: Sequence[str]) -> None:
  """Measures, saves, reports."""
  options = parse(argv)
  scale = scale_of(options)
  facts = {
    **manifest.make(),
    'load_average': warn_of_load(),
    'task': TASK,
    'seeds': scale.seeds,
    'flops': {
      size.text: products.count_flops(
        update_workloads.passes_of('sac', size), size.batch_size
      )
      for size in scale.sizes
    },
  }
  measure(groups(scale, options.only), facts, options.out, accelerator_report.markdown)


if __name__ == '__main__':
  main(sys.argv[1:])
