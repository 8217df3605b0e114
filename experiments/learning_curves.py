"""Learning curves of PPO, RbRL and RbRL-KL with their controls.

Runs what is missing, one vmapped program an arm, and draws what is there:

  python experiments/learning_curves.py --scale=quick --seeds=5
  python experiments/learning_curves.py --draw_only

Every finished run leaves `results/learning_curves/<task>-<arm>.json`: the true
return of training episodes per chunk and seed, the deterministic evaluation at the
end, the flags and the versions that made them. The picture and the table are made
from these files alone.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time

import numpy as np
from curves import Curve, plot, random_return

from rlfb_jax.bin import train
from rlfb_jax.training import manifest, metrics
from rlfb_jax.training.intervals import mean_interval, paired_difference

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / 'results' / 'learning_curves'

# Arm -> flags. `logged_only` trains to the same bits as `rbrl` (a test holds it to
# that), so the curve of `rbrl` is that control's curve too.
ARMS = {
  'ppo': ['--method=ppo'],
  'rbrl': ['--method=rbrl'],
  'rbrl_kl': ['--method=rbrl_kl'],
  'shuffled': ['--method=rbrl_kl', '--kl_shuffled_labels=true'],
  'rbrl_kl_strong': ['--method=rbrl_kl', '--kl_beta=0.1'],
  'uniform': ['--method=rbrl_kl', '--kl_weights=uniform'],
  'influence': ['--method=rbrl_kl', '--kl_mode=influence'],
}
DEFAULT_ARMS = 'ppo,rbrl,rbrl_kl,shuffled'
DEFAULT_TASKS = 'cartpole_swingup,cheetah_run,walker_walk'

# G_max of the rater: what a good agent of this length reaches in 50 steps. With the
# published 50 for the walker, agents of this length see nothing but the lowest class
# (500 labels, 5 seeds, one label above class 0), and nothing is learned.
TASK_FLAGS = {
  'cartpole_swingup': ['--rating_max_return=30'],
  'cheetah_run': ['--rating_max_return=10'],
  'walker_walk': ['--rating_max_return=20'],
}

# Environment steps of each seed.
SCALES = {
  'quick': {
    'cartpole_swingup': 256_000,
    'cheetah_run': 256_000,
    'walker_walk': 480_000,
  },
  'paper': {},
}
PAPER_STEPS = 4_000_000

# Authors' plot of walker-walk at 4M steps (Dev1nW/Simplified-Rating-and-Preference-RL,
# `Demos/Walker.png`, read off it to within 10).
PUBLISHED = {'walker_walk': {'PPO at 4M, published plot': 885.0}}


def arguments(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--tasks', default=DEFAULT_TASKS, help='comma-separated')
  parser.add_argument('--arms', default=DEFAULT_ARMS, help='of ' + ', '.join(ARMS))
  parser.add_argument('--seeds', type=int, default=5)
  parser.add_argument('--scale', choices=SCALES, default='quick')
  parser.add_argument('--steps', type=int, default=0, help='instead of the scale')
  parser.add_argument('--preset', default='fast', help='flag file of all arms')
  parser.add_argument('--suffix', default='', help='added to file names')
  parser.add_argument('--draw_only', action='store_true')
  options = parser.parse_args(argv)
  for arm in options.arms.split(','):
    if arm not in ARMS:
      parser.error(f'--arms={arm} is not one of {", ".join(ARMS)}.')
  return options


def run_arm(task: str, arm: str, options: argparse.Namespace) -> None:
  """Trains one arm unless its file is there."""
  path = RESULTS / f'{task}-{arm}{options.suffix}.json'
  if path.exists():
    print(f'{path.name} is there')
    return
  steps = options.steps or SCALES[options.scale].get(task, PAPER_STEPS)
  with tempfile.TemporaryDirectory() as folder:
    flags = [
      f'--preset={options.preset}',
      f'--task={task}',
      *ARMS[arm],
      *(TASK_FLAGS.get(task, []) if options.scale == 'quick' else []),
      f'--num_seeds={options.seeds}',
      f'--total_env_steps={steps}',
      '--tensorboard=false',
      f'--run_dir={folder}/run',
    ]
    config = train.parse(flags)
    env = train.make_environment(config)
    run = train.start(config, env)
    started = time.monotonic()
    finished = train.train(config, env, run)
    seconds = time.monotonic() - started
    columns = metrics.read(run.root)
    record = {
      'task': task,
      'arm': arm,
      'flags': run.flags.read_text().splitlines(),
      'command': 'python experiments/learning_curves.py ' + ' '.join(sys.argv[1:]),
      'seconds': round(seconds, 1),
      'manifest': manifest.make(),
      'env_steps': columns['env_steps'].astype(int).tolist(),
      'episode_return': np.round(columns['episode_return'], 2).tolist(),
      'evaluation': np.round(finished.trained.evaluation, 2).tolist(),
    }
    for name in WATCHED:
      if name in columns:
        values = np.round(columns[name].astype(float), 4)
        record[name] = np.where(np.isfinite(values), values, None).tolist()
  RESULTS.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(record) + '\n')


WATCHED = (
  'reward_correlation',
  'reward_accuracy',
  'class_counts',
  'labels_asked',
  'kl/action',
  'kl/gradient_ratio',
  'kl/gate_open',
  'policy/entropy',
  'policy/saturation',
)


def load(task: str, suffix: str) -> dict[str, dict]:
  records = {}
  for arm in ARMS:
    path = RESULTS / f'{task}-{arm}{suffix}.json'
    if path.exists():
      records[arm] = json.loads(path.read_text())
  return records


def curve(record: dict) -> Curve:
  returns = np.asarray(record['episode_return'], float)
  return Curve(np.asarray(record['env_steps']), returns)


def draw(tasks: list[str], suffix: str) -> None:
  """The picture and the tables, from the files."""
  panels, levels, lines = {}, {}, []
  for task in tasks:
    records = load(task, suffix)
    if not records:
      continue
    panels[task] = {arm: curve(record) for arm, record in records.items()}
    random = random_return(task)
    levels[task] = {'random policy': float(random.mean()), **PUBLISHED.get(task, {})}
    lines += table(task, records, random)
  if not panels:
    raise SystemExit('no finished arm to draw; run without --draw_only first.')
  seeds = {c.returns.shape[1] for curves in panels.values() for c in curves.values()}
  picture = plot(
    RESULTS / f'curves{suffix}.png',
    panels,
    levels=levels,
    notes=[
      f'Bands: 95 % Student intervals over {"/".join(map(str, sorted(seeds)))} seeds;'
      ' n = 4 classes.',
      'logged_only trains to the same bits as rbrl.',
    ],
  )
  text = '\n'.join(lines) + '\n'
  (RESULTS / f'table{suffix}.md').write_text(text)
  print(text)
  print(picture)


def table(task: str, records: dict[str, dict], random: np.ndarray) -> list[str]:
  """Rows of Markdown: returns of each arm, and paired differences."""
  steps = max(r['env_steps'][-1] for r in records.values())
  lines = [
    f'**{task}**, {steps:,} steps',
    '',
    '| arm | seeds | training return, last 10 % | deterministic evaluation |'
    ' labels by class |',
    '|---|---|---|---|---|',
    f'| random policy | | | {mean_interval(random)} | |',
  ]
  finals, evaluations = {}, {}
  for arm, record in records.items():
    finals[arm] = curve(record).final()
    evaluations[arm] = np.asarray(record['evaluation']).mean(axis=1)
    lines.append(
      f'| {arm} | {len(finals[arm])} | {mean_interval(finals[arm])} |'
      f' {mean_interval(evaluations[arm])} | {label_histogram(record)} |'
    )
  for first, second in (('rbrl_kl', 'rbrl'), ('rbrl_kl', 'shuffled')):
    if first in finals and second in finals:
      if finals[first].shape != finals[second].shape:
        continue
      lines.append(
        f'| {first} minus {second}, paired | |'
        f' {paired_difference(finals[first], finals[second])} |'
        f' {paired_difference(evaluations[first], evaluations[second])} | |'
      )
  return [*lines, '']


def label_histogram(record: dict) -> str:
  """Ratings of each class after the last session, mean over seeds."""
  rows = [row for row in record.get('class_counts', []) if row[0][0] is not None]
  if not rows:
    return ''
  return ' / '.join(f'{count:.0f}' for count in np.mean(rows[-1], axis=0))


def main() -> None:
  options = arguments(sys.argv[1:])
  tasks = options.tasks.split(',')
  if not options.draw_only:
    for task in tasks:
      for arm in options.arms.split(','):
        run_arm(task, arm, options)
  draw(tasks, options.suffix)


if __name__ == '__main__':
  main()
