"""From cells to jobs: what may share a program does, as far as memory allows."""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rlfb_jax import methods
from rlfb_jax.envs.base import Environment
from rlfb_jax.methods.config import Config
from rlfb_jax.methods.family import flags_of, program_of
from rlfb_jax.sweeps.definition import Cell, Sweep
from rlfb_jax.sweeps.held import Held, Run, choose, run_of, settings_of
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
    arms: name of each run's arm, '' where it has none.
  """

  name: str
  arguments: tuple[str, ...]
  rows: tuple[Row, ...]
  config: Config
  memory: int
  arms: tuple[str, ...]


class _Member(NamedTuple):
  cell: Cell
  config: Config
  flags: dict[str, Any]


class _Planned(NamedTuple):
  member: _Member
  run: Run


Parse = Callable[[Sequence[str]], Config]
MakeEnvironment = Callable[[Config], Environment]


def plan(
  sweep: Sweep,
  parse: Parse,
  make_environment: MakeEnvironment,
  *,
  max_rows: int = 0,
  memory: int,
  held: Sequence[Held] = (),
) -> list[Job]:
  """The jobs of a sweep.

  They depend on the definition and on what was begun before the sweep, and not on how
  far the sweep is: what lies in the folders of its own jobs leads to the same jobs.

  Args:
    sweep: the definition.
    parse: `arguments -> Config`, refusing what is wrong in one sentence.
    make_environment: `Config -> environment`.
    max_rows: most runs in one program; 0 for as many as fit `memory`.
    memory: bytes that a job may take.
    held: folders of jobs that were begun; what they hold of the sweep is not run
      elsewhere again.

  Returns:
    In the order of the definition.

  Raises:
    ValueError: in one sentence, for a cell that cannot be run.
  """
  environments: dict[str, Environment] = {}
  groups: dict[Any, list[_Member]] = {}
  for cell in sweep.cells():
    config = _checked(sweep, cell, parse, make_environment, environments)
    member = _Member(cell, config, flags_of(config))
    groups.setdefault(program_of(config), []).append(member)
  runs = [
    [_Planned(m, r) for m in members for r in _runs_of(m.config, sweep.seeds)]
    for members in groups.values()
  ]
  wanted = _refuse_repeats([planned for group in runs for planned in group])

  def job_of(part: Sequence[_Planned]) -> Job:
    return _job(sweep, part, environments[part[0].member.config.run.task])

  def begun(folder: Held) -> Job:
    job = job_of([wanted[run] for run in folder.runs if run in wanted])
    config = _with_rows(job.config, len(folder.rows), job.config.run.seed)
    arms = tuple(
      wanted[run].member.cell.arm if run in wanted else '' for run in folder.runs
    )
    return job._replace(name=folder.name, rows=folder.rows, config=config, arms=arms)

  def fits(folder: Held) -> bool:
    num_rows = len(folder.rows)
    few = num_rows <= (max_rows or num_rows)
    return few and (num_rows == 1 or begun(folder).memory <= memory)

  chosen = choose(held, wanted, fits)
  taken = {run for folder in chosen for run in folder.runs}
  place = {run: i for i, run in enumerate(wanted)}
  jobs = [
    (min(place[run] for run in folder.runs if run in place), begun(folder))
    for folder in chosen
  ]
  for group in runs:
    env = environments[group[0].member.config.run.task]
    for part in _cut(group, env, max_rows, memory):
      # Each for itself: were the rest of all cut anew, what the first of the new jobs
      # leave behind would change how the others are cut.
      rest = [planned for planned in part if planned.run not in taken]
      if rest:
        jobs.append((place[rest[0].run], job_of(rest)))
  return [job for _, job in sorted(jobs, key=lambda placed: placed[0])]


def _cut(
  runs: Sequence[_Planned], env: Environment, max_rows: int, memory: int
) -> list[Sequence[_Planned]]:
  """Runs of one program as jobs, as even as can be.

  A last job with one row would take as long to compile.
  """
  limit = min(max_rows or len(runs), len(runs))
  most = _most_rows(runs[0].member.config, env, limit, memory)
  num_jobs = -(-len(runs) // most)
  ends = [i * len(runs) // num_jobs for i in range(num_jobs + 1)]
  return [runs[begin:end] for begin, end in itertools.pairwise(ends)]


def runs_of(sweep: Sweep, parse: Parse) -> set[Run]:
  """Everything that a definition wants to be trained.

  Raises:
    ValueError: in one sentence.
  """
  return {
    run
    for cell in sweep.cells()
    for run in _runs_of(parse(sweep.arguments(cell)), sweep.seeds)
  }


def _runs_of(config: Config, seeds: int) -> list[Run]:
  first = run_of(flags_of(config), config.run.seed)
  return [first._replace(seed=first.seed + i) for i in range(seeds)]


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


def _refuse_repeats(runs: Sequence[_Planned]) -> dict[Run, _Planned]:
  """What each run is; two cells may mean the same, by a default or another spelling."""
  found: dict[Run, _Planned] = {}
  for planned in runs:
    first = found.setdefault(planned.run, planned)
    if first is not planned:
      one, other = _written(first.member.cell), _written(planned.member.cell)
      raise ValueError(
        f'Seed {planned.run.seed} is there twice, by {one} and by {other}, which mean'
        ' the same; leave one of them out.'
      )
  return found


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


def _job(sweep: Sweep, runs: Sequence[_Planned], env: Environment) -> Job:
  first = runs[0].member
  differing = [
    flag
    for flag in first.flags
    if flag != 'seed' and any(m.flags[flag] != first.flags[flag] for m, _ in runs)
  ]
  rows = tuple(
    Row(run.seed, {flag: member.flags[flag] for flag in differing})
    for member, run in runs
  )
  config = _with_rows(first.config, len(rows), rows[0].seed)
  arms = tuple(member.cell.arm for member, _ in runs)
  shared = arms[0] if len(set(arms)) == 1 else ''
  return Job(
    name=_name(first, shared, differing, rows),
    arguments=tuple(sweep.arguments(first.cell)),
    rows=rows,
    config=config,
    memory=methods.memory_needed(config, env).total,
    arms=arms,
  )


def _name(
  first: _Member, arm: str, differing: Sequence[str], rows: Sequence[Row]
) -> str:
  """Task, method and what the cell sets, for people; a hash of all, to be one."""
  run = first.config.run
  own = settings_of(first.flags)
  content = {
    'flags': {flag: value for flag, value in own.items() if flag not in differing},
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
