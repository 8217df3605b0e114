"""Flags of `throughput.py`, and what the command lines of all benchmarks share."""

import argparse
import pathlib
import sys
from collections.abc import Iterable, Sequence

from report import LABELS
from workers import ROOT

from rlfb_jax import envs

RESULTS = pathlib.Path(__file__).parent / 'results'
SCRATCH = ROOT / 'runs' / 'benchmarks'

PARTS = ('physics', 'methods', 'baselines', 'cold_start')
MAIN_TASK = 'walker_walk'
METHODS = tuple(LABELS)


def parse(argv: Sequence[str], description: str) -> argparse.Namespace:
  """The command line; ends with a sentence where it is wrong.

  Returns:
    A namespace in which `tasks`, `seeds`, `only` and `methods` are lists.
  """
  parser = argparse.ArgumentParser(
    description=description, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--tasks', default=MAIN_TASK, help='comma-separated, the main one first; or all')
  add('--methods', default=','.join(METHODS), help='comma-separated')
  add('--only', default=','.join(PARTS), help='parts to measure, comma-separated')
  add('--seeds', default='1,10', help='numbers of seeds, 1 first')
  add('--repeats', type=int, default=6, help='rounds at one seed')
  add('--repeats_many', type=int, default=2, help='rounds at more seeds')
  add('--repeats_tasks', type=int, default=3, help='rounds of other tasks, one seed')
  add('--chunk_rollouts', type=int, default=1, help='rollouts in a sample of training')
  add('--sb3_python', default=sys.executable, help='interpreter that has torch and SB3')
  add_out(parser, 'throughput')
  add('--tiny', action='store_true', help='sizes for tests: seconds, numbers worthless')
  options = parser.parse_args(argv)
  known = envs.task_names()
  if options.tasks == 'all':
    rest = (task for task in known if task != MAIN_TASK)
    options.tasks = ','.join([MAIN_TASK, *rest])
  for name, choices in (('tasks', known), ('methods', METHODS), ('only', PARTS)):
    setattr(options, name, split(parser, name, getattr(options, name), choices))
  options.seeds = _seeds(parser, options.seeds)
  for name in ('repeats', 'repeats_many', 'repeats_tasks', 'chunk_rollouts'):
    check_at_least(parser, name, getattr(options, name), 1)
  whole = not options.tiny and options.tasks[0] == MAIN_TASK
  whole &= set(options.only) == set(PARTS) and set(options.methods) == set(METHODS)
  options.out = out_path(options.out, 'throughput', whole)
  return options


def add_out(parser: argparse.ArgumentParser, name: str) -> None:
  """The flag that `out_path` reads."""
  parser.add_argument(
    '--out',
    default='',
    help=f'raw samples; default: benchmarks/results/{name}.json, or'
    f' runs/benchmarks/{name}.json where not all is measured at full size',
  )


def out_path(given: str, name: str, whole: bool) -> pathlib.Path:
  """Where raw samples go, in a folder that is there.

  Args:
    given: what --out says.
    name: of the benchmark.
    whole: whether all is measured at full size. Results that are kept are not replaced
      by less unless somebody says so.
  """
  if given:
    path = pathlib.Path(given)
  else:
    path = (RESULTS if whole else SCRATCH) / f'{name}.json'
    if not whole:
      said = f'not all is measured at full size: results go to {path}'
      print(said, file=sys.stderr)
  path.parent.mkdir(parents=True, exist_ok=True)
  return path


def split(
  parser: argparse.ArgumentParser, flag: str, text: str, known: Iterable[str]
) -> list[str]:
  """The values of a comma-separated flag.

  Args:
    parser: ends the program with one sentence where a value is unknown or said twice.
    flag: its name, without dashes.
    text: what was given.
    known: values that there are.
  """
  known, values = list(known), text.split(',')
  for value in values:
    if value not in known:
      parser.error(f'--{flag}={value} is not one of {", ".join(known)}.')
  check_once(parser, flag, values)
  return values


def check_once(
  parser: argparse.ArgumentParser, flag: str, values: Sequence[object]
) -> None:
  """Ends the program with one sentence where a value is said twice."""
  once, given = (','.join(map(str, v)) for v in (dict.fromkeys(values), values))
  if once != given:
    parser.error(f'--{flag}={given} names one twice; try --{flag}={once}.')


def check_at_least(
  parser: argparse.ArgumentParser, flag: str, value: int, low: int
) -> None:
  """Ends the program with one sentence where a number is too small."""
  if value < low:
    parser.error(f'--{flag}={value} must be at least {low}; try --{flag}={low}.')


def _seeds(parser: argparse.ArgumentParser, text: str) -> list[int]:
  numbers = [int(part) for part in text.split(',') if part.isdecimal()]
  if len(numbers) < len(text.split(',')) or numbers[0] != 1 or min(numbers) < 1:
    parser.error(f'--seeds={text} must be numbers, 1 first; try --seeds=1,10.')
  check_once(parser, 'seeds', numbers)
  return numbers
