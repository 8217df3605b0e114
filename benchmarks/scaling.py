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

Raw samples go to `--out`, tables beside it. Nothing else should run meanwhile.
"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import workloads
from measure import summarize
from report import table
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


def measure(sizes: dict[str, int], devices: Sequence[int], rounds: int) -> list[Any]:
  """All samples: one record for each axis and way to spread."""
  records = []
  for axis, seeds in SEEDS.items():
    meshes = [f'{axis}:{n}' for n in devices]
    order = {'seeds': seeds, 'meshes': meshes, 'sizes': sizes, 'rounds': rounds}
    (found,) = _run([order], devices=max(devices))
    records.append({'kind': 'devices', 'axis': axis, 'seeds': seeds, **found})
  for axis, seeds in PROCESS_SEEDS.items():
    for count in (1, 2):
      meshes = [f'{axis}:{count}']
      order = {'seeds': seeds, 'meshes': meshes, 'sizes': sizes, 'rounds': rounds}
      found = _run([order] * count, pinned=True)[0]
      records.append({'kind': 'processes', 'axis': axis, 'seeds': seeds, **found})
  return records


def measure_many(sizes: dict[str, int], rounds: int) -> list[Any]:
  """Samples of PPO with one seed and with ten, one record for each row of `MANY`."""
  records = []
  for processes, seeds, mesh in MANY:
    order = {'seeds': seeds, 'meshes': [mesh], 'sizes': sizes, 'rounds': rounds}
    orders = [order | {'task': MANY_TASK}] * processes
    found = _run(orders, pinned=processes > 1)[0]
    facts = {'kind': 'many', 'processes': processes, 'seeds': seeds}
    records.append({**facts, **found})
  return records


def _run(orders: list[Any], devices: int = 1, pinned: bool = False) -> list[Any]:
  """Starts processes, on a core each where pinned, and waits for what they found."""
  xla = os.environ.get('XLA_FLAGS', '')
  xla += f' --xla_force_host_platform_device_count={devices}'
  env = {
    **os.environ,
    'XLA_FLAGS': xla,
    'PYTHONPATH': str(ROOT),
    'JAX_PLATFORMS': 'cpu',
  }
  address = f'localhost:{_free_port()}'
  children = []
  for i, order in enumerate(orders):
    hosts = {
      'coordinator_address': address,
      'num_processes': len(orders),
      'process_id': i,
    }
    full = {
      'task': TASK,
      'threads': int(pinned),
      'hosts': hosts if len(orders) > 1 else {},
      **order,
    }
    command = [sys.executable, str(_CHILD), json.dumps(full)]
    if pinned and shutil.which('taskset'):
      command = ['taskset', '-c', str(i), *command]
    children.append(
      subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
      )
    )
  try:
    said = [child.communicate(timeout=_TIMEOUT) for child in children]
  finally:
    for child in children:
      child.kill()
  for child, (_, errors) in zip(children, said, strict=True):
    if child.returncode:
      raise RuntimeError(errors.strip()[-2000:] or 'It ended without a word.')
  return [json.loads(out.strip().splitlines()[-1]) for out, _ in said]


def markdown(results: dict[str, Any]) -> str:
  """All tables that the samples give."""
  sizes = ', '.join(f'{name} {value}' for name, value in results['sizes'].items())
  versions = ', '.join(f'{n} {v}' for n, v in results['versions'].items() if v)
  parts = [
    '# Scaling',
    f'`{" ".join(results["command"])}`, {results["started"]},'
    f' {results["minutes"]} minutes.',
    f'{results["processor"]}, {results["cores"]} cores, load average'
    f' {results["load_average"]:.2f} before. {versions}.',
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


def main(argv: Sequence[str]) -> None:
  """Measures, and writes what was found."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
  results_folder = pathlib.Path(__file__).parent / 'results'
  parser.add_argument(
    '--out', type=pathlib.Path, default=results_folder / 'scaling.json'
  )
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--quick', action='store_true')
  options = parser.parse_args(argv)
  sizes = QUICK_SIZES if options.quick else SIZES
  many_sizes = workloads.TINY_SIZES if options.quick else workloads.SIZES
  devices = DEVICES[:2] if options.quick else DEVICES
  rounds = min(options.rounds, MANY_ROUNDS)
  start = time.time()
  results = {
    **manifest.make(['python', 'benchmarks/scaling.py', *argv]),
    'load_average': os.getloadavg()[0],
    'sizes': sizes,
    'records': [
      *measure(sizes, devices, options.rounds),
      *measure_many(many_sizes, rounds),
    ],
    'minutes': round((time.time() - start) / 60, 1),
  }
  options.out.write_text(json.dumps(results, indent=1) + '\n')
  options.out.with_suffix('.md').write_text(markdown(results))


if __name__ == '__main__':
  main(sys.argv[1:])
