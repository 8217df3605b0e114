"""What it costs to spread a run over devices and processes.

  python benchmarks/scaling.py           # about 12 minutes
  python benchmarks/scaling.py --quick   # sizes for tests, numbers worthless

Two questions, each for seeds (`--mesh=seed:n`) and for the data of one seed
(`--mesh=data:n`):
  - the same work on 1, 2, 4 and 8 simulated devices of one process. They share the
    cores of one machine, so this shows the price of spreading, never a gain.
  - the same work in one process on one core, and in two processes on a core each,
    which speak through the loopback device. Here two should be faster than one.
And one for users of two cores: PPO at the sizes of `throughput.py`, one seed, ten in
one process, and ten in two processes on a core each.

Raw samples go to `--out` as they come, by default to `benchmarks/results`, with --quick
to `runs/benchmarks`; tables beside it. Nothing else should run meanwhile.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

import command_line
import workloads
from measure import summarize, warn_of_load
from report import circumstances, table
from workers import ROOT

from rlfb_jax.training import manifest

TASK = 'cheetah_run'
SIZES = {
  'num_envs': 32,
  'rollout_steps': 100,
  'num_epochs': 4,
  'minibatch_size': 320,
  'hidden_size': 128,
  'hidden_layers': 2,
}
QUICK_SIZES = SIZES | {
  'num_envs': 8,
  'rollout_steps': 8,
  'num_epochs': 1,
  'minibatch_size': 16,
  'hidden_size': 8,
}
DEVICES = (1, 2, 4, 8)
# Axis -> seeds trained side by side. The work is the same on every mesh.
SEEDS = {'seed': 8, 'data': 1}
PROCESS_SEEDS = {'seed': 2, 'data': 1}
# The user's question: processes, seeds, mesh.
MANY_TASK = 'walker_walk'
MANY = ((1, 1, 'seed:1'), (1, 10, 'seed:1'), (2, 10, 'seed:2'))
MANY_ROUNDS = 3
_CHILD = pathlib.Path(__file__).parent / 'scaling_child.py'
_TIMEOUT = 600.0
_POLL = 0.2  # Seconds between looks at processes: often enough, and it costs nothing.


def measure(
  sizes: dict[str, int], devices: Sequence[int], rounds: int
) -> Iterator[dict[str, Any]]:
  """All samples: one record for each axis and way to spread, as they come."""
  for axis, seeds in SEEDS.items():
    meshes = [f'{axis}:{n}' for n in devices]
    order = {'seeds': seeds, 'meshes': meshes, 'sizes': sizes, 'rounds': rounds}
    (found,) = _run([order], devices=max(devices))
    yield {'kind': 'devices', 'axis': axis, 'seeds': seeds, **found}
  for axis, seeds in PROCESS_SEEDS.items():
    for count in (1, 2):
      meshes = [f'{axis}:{count}']
      order = {'seeds': seeds, 'meshes': meshes, 'sizes': sizes, 'rounds': rounds}
      found = _run([order] * count, pinned=True)[0]
      yield {'kind': 'processes', 'axis': axis, 'seeds': seeds, **found}


def measure_many(sizes: dict[str, int], rounds: int) -> Iterator[dict[str, Any]]:
  """Samples of PPO with one seed and with ten, one record for each row of `MANY`."""
  for processes, seeds, mesh in MANY:
    order = {'seeds': seeds, 'meshes': [mesh], 'sizes': sizes, 'rounds': rounds}
    orders = [order | {'task': MANY_TASK}] * processes
    found = _run(orders, pinned=processes > 1)[0]
    yield {'kind': 'many', 'processes': processes, 'seeds': seeds, **found}


def _run(orders: list[Any], devices: int = 1, pinned: bool = False) -> list[Any]:
  """Starts processes, on a core each where pinned, and waits for what they found.

  Raises:
    RuntimeError: if one fails or takes too long; with its last words.
  """
  cores = sorted(os.sched_getaffinity(0))
  address = f'localhost:{_free_port()}'
  commands = []
  for i, order in enumerate(orders):
    together = {
      'coordinator_address': address,
      'num_processes': len(orders),
      'process_id': i,
    }
    hosts = together if len(orders) > 1 else {}
    full = {'task': TASK, 'threads': int(pinned), 'hosts': hosts, **order}
    command = [sys.executable, str(_CHILD), json.dumps(full)]
    if pinned and shutil.which('taskset'):
      command = ['taskset', '-c', str(cores[i % len(cores)]), *command]
    commands.append(command)
  said = run_together(commands, _environment(devices), _TIMEOUT)
  return [json.loads(out.strip().splitlines()[-1]) for out in said]


def _environment(devices: int) -> dict[str, str]:
  path = (str(ROOT), os.environ.get('PYTHONPATH'))
  flags = (
    os.environ.get('XLA_FLAGS'),
    f'--xla_force_host_platform_device_count={devices}',
  )
  return {
    **os.environ,
    'XLA_FLAGS': ' '.join(f for f in flags if f),
    'PYTHONPATH': os.pathsep.join(p for p in path if p),
    'JAX_PLATFORMS': 'cpu',
  }


def run_together(
  commands: Sequence[Sequence[str]], env: dict[str, str], timeout: float
) -> list[str]:
  """Runs processes that need each other, and returns what each printed.

  Where one fails the others, which would wait for it, are ended too.

  Args:
    commands: one a process.
    env: of all.
    timeout: seconds that they may take.

  Raises:
    RuntimeError: if one fails or they take too long; with the last words of the first
      that failed.
  """
  with contextlib.ExitStack() as stack:
    # Files, not pipes, which would fill up unread.
    files = [
      [stack.enter_context(tempfile.TemporaryFile('w+')) for _ in range(2)]
      for _ in commands
    ]
    children = []
    for command, (out, errors) in zip(commands, files, strict=True):
      child = subprocess.Popen(command, env=env, stdout=out, stderr=errors, text=True)
      children.append(child)
      stack.callback(_end, child)
    failed = _wait(children, time.monotonic() + timeout)
    if failed is not None:
      raise RuntimeError(_text(files[failed][1])[-2000:] or 'It ended without a word.')
    return [_text(out) for out, _ in files]


def _wait(children: Sequence[subprocess.Popen[str]], end: float) -> int | None:
  """Waits until all have ended well, or says which has not."""
  while True:
    codes = [child.poll() for child in children]
    for i, code in enumerate(codes):
      if code:
        return i
    if None not in codes:
      return None
    if time.monotonic() > end:
      raise RuntimeError(f'Process {codes.index(None)} has not ended in time.')
    time.sleep(_POLL)


def _end(child: subprocess.Popen[str]) -> None:
  child.kill()
  child.wait()


def _text(file: IO[str]) -> str:
  file.seek(0)
  return file.read().strip()


def markdown(results: dict[str, Any]) -> str:
  """All tables that the samples give."""
  sizes = ', '.join(f'{name} {value}' for name, value in results['sizes'].items())
  parts = [
    *circumstances('Scaling', results),
    f'PPO on {TASK} (C MuJoCo). {sizes}. Medians [smallest-largest] of chunks of one'
    ' rollout and its updates; the work is the same in all rows of a table.',
  ]
  for axis in SEEDS:
    parts += [
      f'## {axis}: simulated devices of one process',
      'They share the cores: above 1.00 is the price of spreading.',
      _table(results, 'devices', axis),
      f'## {axis}: one process or two, a core each',
      'Two cores at best halve the time: 0.50.',
      _table(results, 'processes', axis),
    ]
  parts += [
    '## Many seeds on one machine',
    f'PPO on {MANY_TASK} at the sizes of `throughput.py`. One process has all cores; of'
    ' two, each has one of its own.',
    _many_table(results),
  ]
  return '\n\n'.join(parts) + '\n'


def _table(results: dict[str, Any], kind: str, axis: str) -> str:
  rows, base = [], None
  for record in results['records']:
    if record['kind'] != kind or record['axis'] != axis:
      continue
    for mesh, samples in record['seconds'].items():
      seconds = summarize(samples)
      base = base or seconds.median
      rate = record['env_steps'] / seconds.median
      name, seeds = f'--mesh={mesh}', str(record['seeds'])
      relative = f'{seconds.median / base:.2f}'
      rows.append([name, seeds, seconds.text(3), relative, f'{rate:,.0f}'])
  head = ['mesh', 'seeds', 'seconds a chunk', 'relative', 'steps a second']
  return table(head, rows)


def _many_table(results: dict[str, Any]) -> str:
  rows, base = [], None
  for record in results['records']:
    if record['kind'] != 'many':
      continue
    (samples,) = record['seconds'].values()
    seconds = summarize(samples)
    rate = record['env_steps'] / seconds.median
    base = base or rate
    counts = str(record['processes']), str(record['seeds'])
    rows.append([*counts, seconds.text(1), f'{rate:,.0f}', f'{rate / base:.2f}'])
  return table(['processes', 'seeds', 'seconds a chunk', 'steps a second', ''], rows)


def _free_port() -> int:
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return int(free.getsockname()[1])


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """The command line; ends with a sentence where it is wrong."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
  command_line.add_out(parser, 'scaling')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--quick', action='store_true', help='sizes for tests: worthless')
  options = parser.parse_args(argv)
  command_line.check_at_least(parser, 'rounds', options.rounds, 1)
  options.out = command_line.out_path(options.out, 'scaling', not options.quick)
  return options


def main(argv: Sequence[str]) -> None:
  """Measures, and writes what was found."""
  options = parse(argv)
  sizes = QUICK_SIZES if options.quick else SIZES
  many_sizes = workloads.TINY_SIZES if options.quick else workloads.SIZES
  devices = DEVICES[:2] if options.quick else DEVICES
  if len(os.sched_getaffinity(0)) < 2:
    print('two processes share one core here; their rows mean nothing', file=sys.stderr)
  start = time.monotonic()
  results: dict[str, Any] = {
    **manifest.make(['python', 'benchmarks/scaling.py', *argv]),
    'load_average': warn_of_load(),
    'sizes': sizes,
    'records': [],
  }
  for record in itertools.chain(
    measure(sizes, devices, options.rounds),
    measure_many(many_sizes, min(options.rounds, MANY_ROUNDS)),
  ):
    results['records'].append(record)
    results['minutes'] = round((time.monotonic() - start) / 60, 1)
    options.out.write_text(json.dumps(results, indent=1) + '\n')
  options.out.with_suffix('.md').write_text(markdown(results))


if __name__ == '__main__':
  main(sys.argv[1:])
