"""From cells to jobs: what may share a program does, as far as memory allows."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rlfb_jax import methods
from rlfb_jax.envs.base import Environment
from rlfb_jax.methods.config import HOUSEKEEPING, Config
from rlfb_jax.methods.family import flags_of, program_of
from rlfb_jax.sweeps.definition import Cell, Sweep
from rlfb_jax.training.run_dir import Row

_LONGEST_NAME = 90


class Job(NamedTuple):
  """Runs that one process trains in one program.

  Attributes:
    name: of its folder, a function of what is trained.
    arguments: command line that all its runs share.
    rows: seed of each run, and its flags where the runs differ, as numbers.
    config: of the first run, with the number of runs as `num_seeds`.
    memory: bytes that it takes, see `methods.memory_needed`.
    arm: name of the arm, '' where the runs are of several or there are none.
  """

  name: str
  arguments: tuple[str, ...]
  rows: tuple[Row, ...]
  config: Config
  memory: int
  arm: str


class _Member(NamedTuple):
  cell: Cell
  config: Config
  flags: dict[str, Any]


Parse = Callable[[Sequence[str]], Config]
MakeEnvironment = Callable[[Config], Environment]


def plan(
  sweep: Sweep,
  parse: Parse,
  make_environment: MakeEnvironment,
  *,
  max_rows: int = 0,
  memory: int,
) -> list[Job]:
  """The jobs of a sweep, in an order that depends on the definition alone.

  Args:
    sweep: the definition.
    parse: `arguments -> Config`, refusing what is wrong in one sentence.
    make_environment: `Config -> environment`.
    max_rows: most runs in one program; 0 for as many as fit `memory`.
    memory: bytes that a job may take.

  Raises:
    ValueError: in one sentence, for a cell that cannot be run.
  """
  environments: dict[str, Environment] = {}
  groups: dict[Any, list[_Member]] = {}
  for cell in sweep.cells():
    config = _checked(sweep, cell, parse, make_environment, environments)
    member = _Member(cell, config, flags_of(config))
    groups.setdefault(program_of(config), []).append(member)
  jobs = []
  for members in groups.values():
    env = environments[members[0].config.run.task]
    runs = [(m, m.config.run.seed + i) for m in members for i in range(sweep.seeds)]
    _refuse_repeats(runs)
    limit = min(max_rows or len(runs), len(runs))
    most = _most_rows(members[0].config, env, limit, memory)
    num_jobs = -(-len(runs) // most)
    for i in range(num_jobs):
      # As even as can be: a last job with one row would take as long to compile.
      part = runs[i * len(runs) // num_jobs : (i + 1) * len(runs) // num_jobs]
      jobs.append(_job(sweep, part, env))
  return jobs


def _checked(
  sweep: Sweep,
  cell: Cell,
  parse: Parse,
  make_environment: MakeEnvironment,
  environments: dict[str, Environment],
) -> Config:
  try:
    config = parse(sweep.arguments(cell))
    task = config.run.task
    if task not in environments:
      environments[task] = make_environment(config)
    methods.check(config, environments[task])
  except ValueError as error:
    if not cell.flags:
      raise
    raise ValueError(f'With {_written(cell)}: {error}') from None
  return config


def _refuse_repeats(runs: Sequence[tuple[_Member, int]]) -> None:
  """Two cells may mean the same, by a default or another spelling."""
  seen: dict[Any, Cell] = {}
  for member, seed in runs:
    ours = {f: v for f, v in member.flags.items() if f not in (*HOUSEKEEPING, 'seed')}
    cell = seen.setdefault((seed, *ours.items()), member.cell)
    if cell is not member.cell:
      raise ValueError(
        f'Seed {seed} is there twice, by {_written(cell)} and by'
        f' {_written(member.cell)}, which mean the same; leave one of them out.'
      )


def _written(cell: Cell) -> str:
  return ' '.join(f'--{flag}={value}' for flag, value in cell.flags)


def _with_rows(config: Config, rows: int, seed: int) -> Config:
  run = dataclasses.replace(config.run, num_seeds=rows, seed=seed)
  return dataclasses.replace(config, run=run)


def _most_rows(config: Config, env: Environment, limit: int, memory: int) -> int:
  """Runs of a program that fit, at least one: a job too large says so itself."""
  rows = 1
  while rows < limit:
    if methods.memory_needed(_with_rows(config, rows + 1, 0), env).total > memory:
      break
    rows += 1
  return rows


def _job(sweep: Sweep, runs: Sequence[tuple[_Member, int]], env: Environment) -> Job:
  first, seed = runs[0]
  differing = [
    flag
    for flag in first.flags
    if flag != 'seed' and any(m.flags[flag] != first.flags[flag] for m, _ in runs)
  ]
  rows = tuple(
    Row(seed, {flag: member.flags[flag] for flag in differing}) for member, seed in runs
  )
  config = _with_rows(first.config, len(rows), seed)
  arms = {member.cell.arm for member, _ in runs}
  arm = arms.pop() if len(arms) == 1 else ''
  return Job(
    name=_name(first, arm, differing, rows),
    arguments=tuple(sweep.arguments(first.cell)),
    rows=rows,
    config=config,
    memory=methods.memory_needed(config, env).total,
    arm=arm,
  )


def _name(
  first: _Member, arm: str, differing: Sequence[str], rows: Sequence[Row]
) -> str:
  """Task, method and what the cell sets, for people; a hash of everything, to be one.

  Only options that differ from their defaults enter the hash, so that a new option does
  not make new jobs of old ones.
  """
  run = first.config.run
  defaults = flags_of(Config())
  left_out = {*HOUSEKEEPING, 'seed', 'num_seeds', *differing}
  content = {
    'flags': {
      flag: value
      for flag, value in sorted(first.flags.items())
      if flag not in left_out and value != defaults[flag]
    },
    'rows': [[row.seed, sorted(row.flags.items())] for row in rows],
  }
  digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
  named = {'task', 'method', 'preset', *differing}
  parts = [run.task, run.method, arm]
  parts += [f'{flag}={value}' for flag, value in first.cell.flags if flag not in named]
  seeds = sorted({row.seed for row in rows})
  parts.append(f's{seeds[0]}' + (f'..{seeds[-1]}' if len(seeds) > 1 else ''))
  text = '-'.join(part for part in parts if part)
  text = re.sub(r'[^\w.=+-]+', '_', text)[:_LONGEST_NAME]
  return f'{text}-{digest}'
