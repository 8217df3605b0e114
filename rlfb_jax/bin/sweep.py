"""rlfb-sweep: a grid of runs as jobs that any number of machines share.

rlfb-sweep --out=sweeps/beta --grid 'kl_beta=0.03,0.1,0.3' --seeds=10 --method=rbrl_kl
rlfb-sweep --out=sweeps/table --file=table.toml --dry_run
rlfb-sweep --out=sweeps/table --file=table.toml --shard=3/8

  --out=FOLDER       where the jobs' folders are; a second start does what is missing
  --file=FILE        a definition in TOML: seeds, [flags], [grid], [arms.NAME]
  --grid=FLAG=A,B    one axis of the grid; may be given several times
  --arm=NAME: F=V    an arm: several flags at once; may be given several times
  --seeds=N          seeds of every combination, from --seed on (1)
  --max_rows=N       most runs in one program; 0 for as many as fit --memory_gib (0)
  --memory_gib=G     memory that one job may take for replay, clips and labels (8)
  --shard=I/N        do the I-th of N shares of the jobs, counted from 0
  --dry_run          show the jobs and how far they are, and run nothing

Every other flag is one of rlfb-train and the same for all runs.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax

from rlfb_jax.bin import flags, launch
from rlfb_jax.sweeps import cost, held, table
from rlfb_jax.sweeps.definition import Sweep, read, read_arms, read_axes
from rlfb_jax.sweeps.folder import JobFolder
from rlfb_jax.sweeps.jobs import Job, plan
from rlfb_jax.sweeps.runner import STOPPED, Interrupted, Outcome, taken, work_through
from rlfb_jax.training.progress import tell
from rlfb_jax.training.run import make_environment

PROGRAM = 'rlfb-sweep'
JOB_COMMAND = (sys.executable, '-m', 'rlfb_jax.bin.sweep_job')

_SINGLE = ('out', 'file', 'seeds', 'max_rows', 'memory_gib', 'shard')
_REPEATED = ('grid', 'arm')
# The sweep's own; all others are those of the runs.
FLAGS = (*_SINGLE, *_REPEATED, 'dry_run')


class Command(NamedTuple):
  """What a command line asks for.

  Attributes:
    sweep: what to run.
    out: where.
    shard: which share of how many.
    max_rows: most runs in a program, 0 for no limit but memory.
    memory: bytes that a job may take.
    dry_run: whether to look only.
  """

  sweep: Sweep
  out: pathlib.Path
  shard: tuple[int, int]
  max_rows: int
  memory: int
  dry_run: bool


def parse(argv: Sequence[str]) -> Command:
  """Reads a command line.

  Raises:
    ValueError: in one sentence.
  """
  given: dict[str, str] = {}
  repeated: dict[str, list[str]] = {name: [] for name in _REPEATED}
  base, dry_run = [], False
  args = iter(argv)
  for arg in args:
    name, equals, value = arg.lstrip('-').partition('=')
    ours = arg.startswith('-') and name in (*_SINGLE, *_REPEATED)
    if arg.startswith('-') and name == 'dry_run':
      if value not in ('', 'true', 'false'):
        raise ValueError(f'--dry_run={value} must be true or false.')
      dry_run = value != 'false'
    elif ours:
      value = value if equals else next(args, '')
      if not value:
        raise ValueError(f'--{name} needs a value.')
      if name in repeated:
        repeated[name].append(value)
      else:
        given[name] = value
    elif name in ('preset', 'flagfile') and not equals:
      base.append(f'--{name}={next(args, "")}')
    else:
      base.append(arg)
  if 'out' not in given:
    raise ValueError('--out=FOLDER is missing, where the runs are to be left.')
  from_file = read(given['file']) if 'file' in given else Sweep()
  sweep = Sweep(
    seeds=_whole('seeds', given, from_file.seeds),
    base=(*from_file.base, *base),
    grid={**from_file.grid, **read_axes(repeated['grid'])},
    arms={**from_file.arms, **read_arms(repeated['arm'])},
  )
  return Command(
    sweep=sweep,
    out=pathlib.Path(given['out']),
    shard=_shard(given.get('shard', '0/1')),
    max_rows=_whole('max_rows', given, 0),
    memory=_whole('memory_gib', given, 8) * 2**30,
    dry_run=dry_run,
  )


def jobs_of(command: Command) -> list[Job]:
  """All jobs of a sweep, whichever shard they belong to, those begun among them.

  Raises:
    ValueError: in one sentence, for a combination that cannot be run.
  """
  # Of this process alone: on a GPU it would take most of the memory from the jobs. And
  # memory is counted alike on machines with and without one.
  jax.config.update('jax_platforms', 'cpu')
  return plan(
    command.sweep,
    launch.parse,
    make_environment,
    max_rows=command.max_rows,
    memory=command.memory,
    held=held.read(command.out, launch.parse),
  )


def main(argv: Sequence[str]) -> int:
  """Runs a sweep, or shows it.

  Returns:
    0 if all jobs of the shard are done, 1 if some have failed, `STOPPED` if somebody
    asked for an end before.
  """
  if flags.wants_help(argv):
    print((__doc__ or '').strip())
    return 0
  with flags.usage_errors(PROGRAM):
    command = parse(argv)
    jobs = jobs_of(command)
  mine = cost.shard(jobs, *command.shard)
  if command.dry_run:
    print(describe(mine, command.out))
    return 0
  index, count = command.shard
  share = f', of which this is shard {index} of {count} with {len(mine)}'
  say(f'{len(jobs)} jobs in {command.out}' + (share if count > 1 else ''))
  for name in strangers(jobs, command.out):
    say(f'{command.out / name} belongs to no job of this sweep; it stays as it is.')
  try:
    outcome = work_through(mine, command.out, JOB_COMMAND, say)
  except Interrupted:
    say('stopped; the same command goes on from here.')
    return STOPPED
  say(conclude(outcome))
  return 1 if outcome.failed else 0


def describe(jobs: Sequence[Job], out: pathlib.Path) -> str:
  """The table of `--dry_run`."""
  states = [JobFolder(out / job.name).state() for job in jobs]
  seconds = taken(jobs, out)
  times = [
    cost.Estimate(seconds[job.name], 'its own clock')
    if job.name in seconds
    else cost.estimate(job, jobs, seconds)
    for job in jobs
  ]
  return table.show(jobs, times, states)


def conclude(outcome: Outcome) -> str:
  """What became of the jobs, and why some have failed."""
  lines = [f'{len(outcome.done)} done']
  if outcome.failed:
    lines[0] += f', {len(outcome.failed)} failed:'
  lines += [f'  {name}: {why}' for name, why in outcome.failed.items()]
  return '\n'.join(lines)


def strangers(jobs: Sequence[Job], out: pathlib.Path) -> list[str]:
  """Folders of jobs that this sweep does not have, from another definition."""
  names = {job.name for job in jobs}
  found = sorted(path.parent.name for path in out.glob('*/job.json'))
  return [name for name in found if name not in names]


def say(text: str) -> None:
  """Tells people, apart from results."""
  tell(f'{PROGRAM}: {text}')


def _whole(name: str, given: dict[str, str], default: int) -> int:
  text = given.get(name)
  if text is None:
    return default
  if not text.isdigit():
    raise ValueError(f'--{name}={text} must be a whole number.')
  return int(text)


def _shard(text: str) -> tuple[int, int]:
  index, slash, count = text.partition('/')
  if not (slash and index.isdigit() and count.isdigit() and int(count) > 0):
    raise ValueError(f'--shard={text} must be a number and how many there are, as 0/4.')
  if int(index) >= int(count):
    raise ValueError(
      f'--shard={text} is none of 0 to {int(count) - 1}: shards are counted from 0; try'
      f' --shard={int(count) - 1}/{count}.'
    )
  return int(index), int(count)


def run() -> None:
  """Entry point of the command."""
  raise SystemExit(main(sys.argv[1:]))


if __name__ == '__main__':
  run()
