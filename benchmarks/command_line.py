"""Flags of `throughput.py`."""

import argparse
import sys
from collections.abc import Sequence

from report import LABELS

from rlfb_jax import envs

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
  add('--repeats_tasks', type=int, default=3, help='rounds of other tasks')
  add('--chunk_rollouts', type=int, default=1, help='rollouts in a sample of training')
  add('--sb3_python', default=sys.executable, help='interpreter that has torch and SB3')
  add('--out', default='benchmarks/results/throughput.json', help='raw samples')
  add('--tiny', action='store_true', help='sizes for tests: seconds, numbers worthless')
  options = parser.parse_args(argv)
  for name in ('tasks', 'methods', 'only', 'seeds'):
    setattr(options, name, getattr(options, name).split(','))
  known = envs.task_names()
  if options.tasks == ['all']:
    options.tasks = [MAIN_TASK, *(task for task in known if task != MAIN_TASK)]
  for name, choices in (('tasks', known), ('methods', METHODS), ('only', PARTS)):
    for value in getattr(options, name):
      if value not in choices:
        parser.error(f'--{name}={value} is not one of {", ".join(choices)}.')
  numbers = [int(text) for text in options.seeds if text.isdecimal()]
  if len(numbers) < len(options.seeds) or numbers[0] != 1 or min(numbers) < 1:
    wrong = ','.join(options.seeds)
    parser.error(f'--seeds={wrong} must be numbers, 1 first; try --seeds=1,10.')
  options.seeds = numbers
  for name in ('repeats', 'repeats_many', 'repeats_tasks', 'chunk_rollouts'):
    if getattr(options, name) < 1:
      parser.error(f'--{name}={getattr(options, name)} must be at least 1; try 1.')
  return options
