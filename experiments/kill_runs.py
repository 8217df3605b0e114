"""Runs that are killed again and again, against ones that are not, bit by bit.

python experiments/kill_runs.py [--kills=20] [--methods=pebble,sac_mjx] [--write]

Each run trains on walker_walk (on MJX: cartpole_swingup), with checkpoints a second or
so apart. Its process is ended with SIGKILL at moments that take turns, those first that
were not met yet: anywhere, inside a save, and while people are asked and the reward is
fitted. The next one goes on from what it finds. At the end every metric, every bit of
the last checkpoint, the evaluation and the exported policy are compared with those of a
run that went through. Exits with 1 if anything differs, or a run was not killed at all.
"""

import argparse
import collections
import itertools
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import choices
import kept
import numpy as np
from orbax import checkpoint as ocp

from rlfb_jax import methods
from rlfb_jax.bin import launch
from rlfb_jax.training import export, manifest
from rlfb_jax.training.run import make_environment

ROOT = pathlib.Path(__file__).resolve().parent
RESULTS = ROOT / 'results' / 'kill_runs.json'
CLOCKS = ('wall_seconds', 'steps_per_second')
ANYWHERE, SAVE, SESSION = 'anywhere', 'save', 'session'
PLACES = {ANYWHERE: 'in a chunk', SAVE: 'inside a save', SESSION: 'in a session'}
NO_LINE = 'before its first line'
POLL = 0.002  # Seconds.
COMMON = (
  '--engine=native',
  '--task=walker_walk',
  '--num_seeds=2',
  '--eval_episodes=2',
  '--checkpoint_minutes=0.02',
  '--tensorboard=false',
)
REPLAY = (
  '--sac_hidden_size=64',
  '--sac_batch_size=32',
  '--updates_per_step=0.125',
  '--replay_num_envs=16',
  '--replay_chunk_steps=320',
  '--replay_random_steps=960',
)
PAIRS = (
  '--pairs_pretrain_steps=1280',
  '--pairs_session_interval=960',
  '--pairs_labels_per_session=40',
  '--pairs_label_budget=400',
  '--reward_hidden_size=64',
)
FLAGS = {
  'pebble': ('--method=pebble', '--total_env_steps=12800', *REPLAY, *PAIRS),
  # All that can be put together: pairs, ratings, the outer step and the repulsion.
  'mrn_both': (
    *('--method=mrn', '--ask=both', '--add=mrn,kl', '--total_env_steps=6400'),
    *(*REPLAY, *PAIRS, '--pairs_label_budget=200'),
    '--feedback_at_episode_end=false',
    '--feedback_pretrain_steps=1280',
    '--feedback_session_interval=960',
    '--feedback_labels_per_session=40',
    '--feedback_label_budget=200',
    '--kl_batch=64',
    '--mrn_interval=960',
  ),
  # The other engine; a cartpole compiles in seconds.
  'sac_mjx': (
    *('--method=sac', '--engine=mjx', '--task=cartpole_swingup'),
    *('--total_env_steps=25600', *REPLAY),
  ),
  'rbrl_kl': (
    '--method=rbrl_kl',
    '--total_env_steps=240000',
    '--ppo_num_envs=8',
    '--ppo_rollout_steps=125',
    '--ppo_minibatch_size=250',
    '--ppo_num_epochs=2',
    '--ppo_hidden_size=64',
    '--feedback_pretrain_steps=8000',
    '--feedback_session_interval=16000',
    '--feedback_labels_per_session=40',
    '--feedback_label_budget=600',
    '--reward_hidden_size=64',
  ),
}


class Kill(NamedTuple):
  """One death.

  Attributes:
    where: it fell, as far as the files tell.
    line: environment steps of the last line of metrics.
    saved: environment steps of the last checkpoint that was complete.
    resumed: environment steps at which the next process went on.
  """

  where: str
  line: int
  saved: int
  resumed: int


def session_steps(flags):
  """Environment steps at which people are asked."""
  config = launch.parse(flags)
  algorithm = methods.make(config, make_environment(config))
  steps = range(0, config.total_env_steps, algorithm.steps_per_chunk)
  return {step for step in steps if algorithm.request(step) is not None}


def command(folder, flags):
  return [
    *(sys.executable, '-m', 'rlfb_jax.bin.train'),
    *flags,
    *(f'--run_dir={folder}', '--resume'),
  ]


def last_line(folder):
  """Environment steps of the last whole line, 0 where there is none."""
  path = folder / 'metrics.jsonl'
  if not path.is_file():
    return 0
  with open(path, 'rb') as file:
    file.seek(max(path.stat().st_size - 20_000, 0))
    lines = file.read().splitlines(keepends=True)
  whole = [line for line in lines if line.endswith(b'\n')]
  return json.loads(whole[-1])['env_steps'] if whole else 0


def saves(folder):
  """Complete checkpoints, and whether one is being written."""
  names = [p.name for p in (folder / 'checkpoints').glob('*')]
  return [int(n) for n in names if n.isdigit()], any('tmp' in n for n in names)


def host_of(folder, step):
  path = folder / 'checkpoints' / str(step) / 'host' / 'metadata'
  return json.loads(path.read_text())


def live(folder, flags, mode, random, sessions):
  """Starts a process and kills it when `mode` says.

  Returns:
    Where the kill fell, its last line and last save; None if it came to its end.
  """
  start = last_line(folder)
  before = set(saves(folder)[0])
  log = open(folder.with_suffix('.log'), 'a')  # noqa: SIM115
  with log, subprocess.Popen(command(folder, flags), stderr=log, stdout=log) as process:
    alive, deadline = False, np.inf
    while process.poll() is None and time.monotonic() < deadline:
      complete, saving = saves(folder)
      # The process drops lines that it will write again.
      line = last_line(folder)
      if not alive and set(complete) - before:
        alive = True
      elif alive and deadline == np.inf:
        if mode == ANYWHERE:
          deadline = time.monotonic() + random.uniform(0.0, 2.0)
        elif (mode == SAVE and saving) or (mode == SESSION and line in sessions):
          deadline = time.monotonic() + random.uniform(0.0, 0.05)
      time.sleep(POLL)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.returncode == 0:
      return None
    if process.returncode != -signal.SIGKILL:
      raise RuntimeError(folder.with_suffix('.log').read_text()[-3000:])
  line = last_line(folder)
  complete, saving = saves(folder)
  newest = (
    host_of(folder, max(complete))['clock'] if complete else {'env_steps': 0, 'done': 0}
  )
  if line <= start and not alive:
    where = NO_LINE
  elif saving:
    where = PLACES[SAVE]
  elif line in sessions and (newest['env_steps'], newest['done']) <= (line, 0):
    where = PLACES[SESSION]
  else:
    where = PLACES[ANYWHERE]
  return where, line, newest['env_steps']


def torment(folder, flags, kills, seed=0):
  """Runs to the end through kills.

  Returns:
    The deaths after which the run went on: `kills` of them, fewer where the run came to
    its end first.
  """
  rng, sessions = random.Random(seed), session_steps(flags)
  modes = (ANYWHERE, SAVE, SESSION) if sessions else (ANYWHERE, SAVE)
  deaths = []
  for number in range(10 * kills):
    hit = {death.where for death in deaths}
    missed = [mode for mode in modes if PLACES[mode] not in hit] or modes
    mode = missed[number % len(missed)] if number < kills else 'none'
    death = live(folder, flags, mode, rng, sessions)
    record = json.loads((folder / 'manifest.json').read_text())
    starts = [session['env_steps'] for session in record['sessions']]
    if deaths and len(starts) > len(deaths):
      deaths[-1] = deaths[-1]._replace(resumed=starts[len(deaths)])
    if death is None:
      return [d for d in deaths if d.resumed >= 0]
    deaths.append(Kill(*death, resumed=-1))
  raise RuntimeError(f'{folder} does not come to its end.')


def lines_of(folder):
  records = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
  return [{k: v for k, v in r.items() if k not in CLOCKS} for r in records]


def arrays_of(folder, step):
  path = (folder / 'checkpoints' / str(step) / 'state').absolute()
  paths = [
    leaf for leaf, shape, *_ in host_of(folder, step)['leaves'] if 0 not in shape
  ]
  as_numpy = dict.fromkeys(paths, ocp.RestoreArgs(restore_type=np.ndarray))
  return ocp.PyTreeCheckpointer().restore(path, restore_args=as_numpy)


def differing_bits(a, b):
  """Of two records of arrays; of what cannot be compared, all bits of the larger."""
  count = 0
  for name in {**a, **b}:
    x, y = (np.asarray(r[name]) if name in r else None for r in (a, b))
    if x is None or y is None or (x.shape, x.dtype) != (y.shape, y.dtype):
      count += 8 * max(v.nbytes for v in (x, y) if v is not None)
      continue
    x, y = (np.ascontiguousarray(v).reshape(-1).view(np.uint8) for v in (x, y))
    count += int(np.unpackbits(x ^ y).sum())
  return count


def differing_lines(a, b):
  """Of two lists of lines; what only the longer one has differs."""
  return sum(x != y for x, y in itertools.zip_longest(a, b))


def policy_of(folder):
  params = export.load_policy(folder).params()
  layers = {
    f'{i}{j}': x
    for i, layer in enumerate(params['layers'])
    for j, x in enumerate(layer)
  }
  return {'mean': params['mean'], 'scale': params['scale'], **layers}


def compare(one, other):
  """How much two runs differ: lines, bits of the last state and of the policy."""
  a, b = lines_of(one), lines_of(other)
  states = [arrays_of(f, max(saves(f)[0])) for f in (one, other)]
  returns = [
    json.loads((f / 'report' / 'evaluation.json').read_text()) for f in (one, other)
  ]
  return {
    'lines': len(a),
    'differing_lines': differing_lines(a, b),
    'bits': 8 * sum(np.asarray(x).nbytes for x in states[0].values()),
    'differing_bits': differing_bits(*states),
    'differing_bits_of_the_policy': differing_bits(policy_of(one), policy_of(other)),
    'evaluations_differ': returns[0] != returns[1],
  }


def failed(run):
  """Whether a run differs from the quiet one, or shows nothing: it was not killed."""
  names = 'differing_lines', 'differing_bits', 'differing_bits_of_the_policy'
  return not run['kills'] or any(run[n] for n in (*names, 'evaluations_differ'))


def summary(name, run):
  """A row of the table."""
  deaths = [Kill(**kill) for kill in run['kills']]
  where = collections.Counter(death.where for death in deaths)
  redone = [death.line - death.resumed for death in deaths] or [0]
  lost = [death.saved - death.resumed for death in deaths] or [0]
  return (
    f'| {name} | {len(deaths)} | '
    + ', '.join(f'{count} {place}' for place, count in where.most_common())
    + f' | {np.mean(redone):,.0f} / {max(redone):,} | {max(lost):,}'
    f' | {run["differing_lines"]} of {run["lines"]}'
    f' | {run["differing_bits"]} of {run["bits"]:,} |'
  )


HEADER = (
  '| run | kills | where they fell | steps done again, mean / most |'
  ' steps lost beyond the last save | differing lines | differing bits |\n'
  '|---|---|---|---|---|---|---|'
)


def parse(argv):
  """The command line; ends with a sentence where it is wrong."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--kills', type=int, default=20, help='of each run')
  parser.add_argument('--methods', default=','.join(FLAGS), help='comma-separated')
  parser.add_argument('--out', type=pathlib.Path, help='empty folder for the runs')
  parser.add_argument(
    '--write', action='store_true', help='keep the results, beside those of other runs'
  )
  args = parser.parse_args(argv)
  choices.check_at_least(parser, 'kills', args.kills, 1)
  args.methods = choices.split(parser, 'methods', args.methods, FLAGS)
  if args.out is None:
    args.out = pathlib.Path(tempfile.mkdtemp(prefix='kill_runs-'))
  choices.check_empty(parser, 'out', args.out)
  return args


def kill(method, out, kills):
  """One run in peace and one through kills, and how they differ."""
  flags = (*COMMON, *FLAGS[method])
  quiet, killed = out / f'{method}-quiet', out / f'{method}-killed'
  subprocess.run(command(quiet, flags), check=True)
  deaths = torment(killed, flags, kills)
  return {
    'manifest': manifest.make(),
    'flags': flags,
    'kills': [death._asdict() for death in deaths],
    **compare(quiet, killed),
  }


def table_of(runs):
  return '\n'.join([HEADER, *(summary(n, runs[n]) for n in FLAGS if n in runs)])


def main(argv):
  args = parse(argv)
  args.out.mkdir(parents=True, exist_ok=True)
  runs = {}
  for method in args.methods:
    runs[method] = kill(method, args.out, args.kills)
    print(summary(method, runs[method]), flush=True)
    if args.write:
      kept.put(
        RESULTS,
        method,
        runs[method],
        'run it again',
        markdown=lambda all_runs: table_of(all_runs) + '\n',
      )
  print(table_of(runs))
  return int(any(failed(run) for run in runs.values()))


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
