"""A sweep that is killed again and again, against one that is not, bit by bit.

python experiments/kill_sweep.py [--kills=2] [--env_steps=19200] [--out=FOLDER]

Starts a tiny sweep (PPO and RbRL-KL on a probe world with two sizes of networks, two
step sizes and two seeds in each program), ends it with SIGKILL at random moments, lets
two shards at once go on, kills one of them too, and finishes with a plain second start.
Then compares every metric, evaluation and exported policy with those of an undisturbed
sweep. Exits with 1 if anything differs, a kill came too late, or a sweep failed.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import choices
import jax
import numpy as np

from rlfb_jax.training import export, files, manifest, metrics

ROOT = pathlib.Path(__file__).resolve().parent
CLOCKS = ('wall_seconds', 'steps_per_second')
SWEEP = (
  '--grid=method=ppo,rbrl_kl',
  '--grid=ppo_learning_rate=1e-3,3e-3',
  '--grid=ppo_hidden_size=8,16',
  '--seeds=2',
  '--task=probe_choice',
  '--ppo_num_envs=8',
  '--ppo_rollout_steps=20',
  '--ppo_minibatch_size=40',
  '--ppo_num_epochs=1',
  '--ppo_hidden_layers=1',
  '--reward_hidden_size=8',
  '--reward_hidden_layers=1',
  '--reward_max_passes=3',
  '--reward_minibatch_size=16',
  '--feedback_label_budget=60',
  '--feedback_labels_per_session=20',
  '--feedback_session_interval=160',
  '--feedback_at_episode_end=false',
  '--feedback_pretrain_steps=0',
  '--feedback_segment_steps=5',
  '--rating_max_return=5',
  '--kl_batch=64',
  '--eval_episodes=2',
  '--checkpoint_interval=480',
  '--checkpoint_minutes=none',
  '--tensorboard=false',
)


CHUNK = 160  # Environment steps a line of metrics.


def command(out, env_steps, *more):
  flags = (*SWEEP, f'--total_env_steps={env_steps}', *more)
  return [sys.executable, '-m', 'rlfb_jax.bin.sweep', f'--out={out}', *flags]


def start(out, env_steps, *more):
  return subprocess.Popen(
    command(out, env_steps, *more),
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )


def lines_written(out):
  """Lines of metrics in all jobs: how far the sweep is."""
  return sum(p.read_bytes().count(b'\n') for p in out.glob('*/metrics.jsonl'))


def kill_when(process, out, lines, *, job_too, limit=600.0):
  """SIGKILL once so many more lines of metrics are there; False if it ended first.

  The sweep alone is killed, whose job then saves itself, or the job with it, whose last
  steps are lost.
  """
  target, end = lines_written(out) + lines, time.monotonic() + limit
  while process.poll() is None and lines_written(out) < target:
    if time.monotonic() > end:
      raise TimeoutError(f'{out} has not reached {target} lines.')
    time.sleep(0.01)
  killed = process.poll() is None
  for pid in jobs_of(process) if job_too else ():
    with contextlib.suppress(ProcessLookupError):  # It has just ended.
      os.kill(pid, signal.SIGKILL)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  return killed


def jobs_of(process):
  """Numbers of the processes that a sweep has started."""
  path = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children')
  try:
    return [int(pid) for pid in path.read_text().split()]
  except OSError:  # The sweep itself has just ended.
    return []


def wait_for_orphans(out, limit=120.0):
  """A job ends by itself when its sweep is gone; a lock that beats says it has not."""
  from rlfb_jax.sweeps.folder import JobFolder, State

  end = time.monotonic() + limit
  folders = [JobFolder(p.parent) for p in out.glob('*/job.json')]
  while any(f.state() is State.RUNNING for f in folders) and time.monotonic() < end:
    time.sleep(0.1)


def differing(a, b):
  """Names of what differs between two finished jobs, in any bit."""
  found, wanted = metrics.read(a), metrics.read(b)
  names = set(found) ^ set(wanted)
  for name in set(found) & set(wanted) - set(CLOCKS):
    if not np.array_equal(found[name], wanted[name], equal_nan=_numbers(found[name])):
      names.add(name)
  for path in ('report/evaluation.json', 'rows.json'):
    if json.loads((a / path).read_text()) != json.loads((b / path).read_text()):
      names.add(path)
  ours, theirs = (jax.tree.leaves(export.load_policy(f).params()) for f in (a, b))
  same = len(ours) == len(theirs)
  if not same or not all(map(np.array_equal, ours, theirs)):
    names.add('policy')
  return sorted(names)


def _numbers(array):
  return np.issubdtype(array.dtype, np.floating)


class Story(NamedTuple):
  """What became of the disturbed sweep.

  Attributes:
    lines: about each start.
    kills: that fell while the sweep ran.
    planned: kills that were to fall.
    codes: exit code of each start that nobody killed, by its name.
  """

  lines: list[str]
  kills: int
  planned: int
  codes: dict[str, int]


def disturb(out, env_steps, kills, whole, rng):
  """Runs the sweep to its end through kills.

  Args:
    out: its folder.
    env_steps: of each run.
    kills: of whole sweeps, before that of one of two shards.
    whole: lines of metrics of the finished sweep.
    rng: when kills come.
  """
  story, fallen = [], 0

  def tell(text):
    story.append(text)
    print(text, flush=True)

  for number in range(kills):
    lines = rng.randint(whole // 24, whole // 3)
    at = lines_written(out)
    job_too = number % 2 == 0
    killed = kill_when(start(out, env_steps), out, lines, job_too=job_too)
    fallen += killed
    what = 'SIGKILL' if killed else 'ended before its kill'
    what += f' at line {lines_written(out)}' + (', its job too' if job_too else '')
    wait_for_orphans(out)
    tell(f'start {number + 1}: went on at line {at}, {what}')
  at = lines_written(out)
  shards = [start(out, env_steps, f'--shard={i}/2') for i in range(2)]
  killed = kill_when(shards[0], out, whole // 24, job_too=True)
  fallen += killed
  said = _last(shards[1].communicate()[1])
  codes = {'shard 1': shards[1].returncode}
  wait_for_orphans(out)
  what = 'got SIGKILL with its job' if killed else 'ended before its kill'
  tell(f'two shards at once: went on at line {at}; shard 0 {what}; shard 1: "{said}"')
  for name in ('last start', 'once more'):
    codes[name], said = _run(out, env_steps)
    tell(f'{name}: "{said}", exit code {codes[name]}')
  return Story(story, fallen, kills + 1, codes)


def _run(out, env_steps):
  done = subprocess.run(
    command(out, env_steps), stderr=subprocess.PIPE, text=True, check=False
  )
  return done.returncode, _last(done.stderr)


def _last(text):
  return (text.strip().splitlines() or ['nothing'])[-1]


def compare(undisturbed, disturbed):
  """A table row a job: claims taken on it, lines, what differs."""
  here, there = (
    {path.parent.name for path in folder.glob('*/job.json')}
    for folder in (undisturbed, disturbed)
  )
  rows = []
  for name in sorted(here | there):
    path, other = undisturbed / name, disturbed / name
    if name not in here & there:
      which = 'undisturbed' if name in here else 'disturbed'
      rows.append((name, 0, 0, [f'only in the {which} sweep']))
      continue
    starts = len(list((other / 'locks').iterdir()))
    lines = (path / 'metrics.jsonl').read_bytes().count(b'\n')
    rows.append((name, starts, lines, differing(path, other)))
  return rows


def problems(rows, story):
  """A sentence for each reason why nothing was shown, or the opposite."""
  found = []
  if not rows:
    found.append('There is no job.')
  if any(names for *_, names in rows):
    found.append('Something differs.')
  if story.kills < story.planned:
    found.append(f'Only {story.kills} of {story.planned} kills came before the end.')
  found += [f'{n} ended with code {c}.' for n, c in story.codes.items() if c]
  return found


def parse(argv):
  """The command line; ends with a sentence where it is wrong."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--kills', type=int, default=2)
  parser.add_argument('--env_steps', type=int, default=19_200, help='of each run')
  parser.add_argument('--seed', type=int, default=0, help='of the moments of kills')
  parser.add_argument('--out', help='empty folder where both sweeps are left')
  parser.add_argument('--write', action='store_true', help='results/kill_sweep.md')
  args = parser.parse_args(argv)
  choices.check_at_least(parser, 'kills', args.kills, 1)
  choices.check_at_least(parser, 'env_steps', args.env_steps, 24 * CHUNK)
  if args.out:
    choices.check_empty(parser, 'out', pathlib.Path(args.out))
  return args


def markdown(made, story, table):
  """What is kept.

  Args:
    made: manifest of this process.
    story: of the disturbed sweep.
    table: lines.
  """
  revision = (made['git'] or {}).get('revision', 'unknown')
  versions = ', '.join(f'{n} {v}' for n, v in made['versions'].items() if v)
  said = f'`python {" ".join(made["command"])}`, {made["started"]}, revision {revision}'
  said += ' with changes' if (made['git'] or {}).get('changed') else ''
  lines = ['# A sweep that is killed', '', f'{said}. {versions}.', '']
  return '\n'.join([*lines, *(f'- {line}' for line in story.lines), '', *table, ''])


def main(argv=None):
  argv = sys.argv[1:] if argv is None else argv
  args = parse(argv)
  with tempfile.TemporaryDirectory() as scratch:
    root = pathlib.Path(args.out or scratch)
    undisturbed, disturbed = root / 'undisturbed', root / 'disturbed'
    code, said = _run(undisturbed, args.env_steps)
    print(f'undisturbed: "{said}", exit code {code}', flush=True)
    whole, rng = lines_written(undisturbed), random.Random(args.seed)
    story = disturb(disturbed, args.env_steps, args.kills, whole, rng)
    rows = compare(undisturbed, disturbed)
  story.codes['undisturbed'] = code
  table = ['| job | starts | lines | what differs |', '|---|---|---|---|']
  table += [
    f'| {name} | {starts} | {lines} | {", ".join(names) or "nothing"} |'
    for name, starts, lines, names in rows
  ]
  found = problems(rows, story)
  print('\n'.join([*table, *found]))
  if args.write:
    made = manifest.make(['experiments/kill_sweep.py', *argv])
    text = markdown(made, story, [*table, *(['', *found] if found else [])])
    files.replace(ROOT / 'results' / 'kill_sweep.md', text.encode())
  return int(bool(found))


if __name__ == '__main__':
  sys.exit(main())
