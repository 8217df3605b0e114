"""Learning curves from ratings and on the true reward; those from pairs: mrn_tables.

Runs what is missing, one vmapped program an arm, and draws what is there:

  python experiments/learning_curves.py --group=ratings --seeds=5 --suffix=-mine
  python experiments/learning_curves.py --group=truth --seeds=2 --suffix=-mine
  python experiments/learning_curves.py --draw_only

These are short runs. Those of the published length are made by `rbrl_kl_table.py`
(from ratings) and `mrn_tables.py` (from pairs, and SAC on the true reward) at
`--scale=paper`.

Runs lie in `runs/learning_curves`; one that was interrupted goes on when the same is
asked for again. Every finished one leaves
`results/learning_curves/<task>-<arm><suffix>.json`: the true return of training
episodes per chunk and seed, the deterministic evaluation at the end, the flags and the
versions that made them. A file that is there is taken for what was asked for only if
its flags are the same, as far as the arm's method reads them; else nothing is run. The
picture and the table are made from these files, but for the level of the random policy,
which is simulated each time they are drawn (32 episodes of seed 0).
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import choices
import numpy as np
import published
import running
from curves import Curve, plot, random_return, where_all_ended

from rlfb_jax import envs, methods
from rlfb_jax.bin import flags, launch
from rlfb_jax.core.config import flag_name
from rlfb_jax.methods.sections import is_read
from rlfb_jax.reports.records import parse_flags
from rlfb_jax.training import files, metrics
from rlfb_jax.training.intervals import mean_interval, paired_difference

PROGRAM = 'learning_curves'
HERE = pathlib.Path(__file__).parent
RESULTS = HERE / 'results' / 'learning_curves'
RUNS = pathlib.Path('runs') / 'learning_curves'


class Group(NamedTuple):
  """Arms that are drawn together.

  Attributes:
    preset: flag file of all arms.
    arms: name -> flags.
    default_arms: those that run unless others are named.
    tasks: task -> flags of all its arms.
    steps: environment steps of each seed, by task.
    differences: pairs of arms whose difference is reported.
    notes: lines below the picture.
    levels: task -> label -> published return, drawn as lines.
  """

  preset: str
  arms: dict[str, list[str]]
  default_arms: tuple[str, ...]
  tasks: dict[str, list[str]]
  steps: dict[str, int]
  differences: tuple[tuple[str, str], ...]
  notes: tuple[str, ...]
  levels: dict[str, dict[str, float]]


RATINGS = Group(
  preset='fast',
  # `logged_only` trains to the same bits as `rbrl` (a test holds it to that), so the
  # curve of `rbrl` is that control's curve too.
  arms={
    'ppo': ['--method=ppo'],
    'rbrl': ['--method=rbrl'],
    'rbrl_kl': ['--method=rbrl_kl'],
    'shuffled': ['--method=rbrl_kl', '--kl_shuffled_labels=true'],
    # A weak push with a large budget, and so saturated actions.
    'rbrl_kl_weak': [
      '--method=rbrl_kl',
      '--kl_beta=0.01',
      '--kl_gradient_budget=0.5',
    ],
    'uniform': ['--method=rbrl_kl', '--kl_weights=uniform'],
    'influence': ['--method=rbrl_kl', '--kl_mode=influence'],
  },
  default_arms=('ppo', 'rbrl', 'rbrl_kl', 'shuffled'),
  # G_max of the rater: what a good agent of this length reaches in 50 steps. With the
  # published 50 for the walker, agents of this length see nothing but the lowest
  # class (500 labels, 5 seeds, one label above class 0), and nothing is learned.
  tasks={
    'cartpole_swingup': ['--rating_max_return=30'],
    'cheetah_run': ['--rating_max_return=10'],
    'walker_walk': ['--rating_max_return=20'],
  },
  steps={
    'cartpole_swingup': 256_000,
    'cheetah_run': 256_000,
    'walker_walk': 480_000,
  },
  differences=(('rbrl_kl', 'rbrl'), ('rbrl_kl', 'shuffled')),
  notes=('n = 4 classes; logged_only trains to the same bits as rbrl.',),
  levels={
    'walker_walk': {'PPO at 4M, published plot': published.RBRL_PLOT['ppo'].mean}
  },
)

TRUTH = Group(
  preset='sac',
  # As published but for the networks: one environment, an update a step.
  arms={
    'sac_one_env': [
      '--sac_hidden_size=256',
      '--sac_batch_size=256',
      '--sac_actor_learning_rate=5e-4',
      '--sac_critic_learning_rate=5e-4',
      '--eval_interval=25000',
    ]
  },
  default_arms=('sac_one_env',),
  tasks={'walker_walk': [], 'cheetah_run': []},
  steps={'walker_walk': 200_000, 'cheetah_run': 100_000},
  differences=(),
  notes=('One environment, an update a step; networks of 256 x 2, batches of 256.',),
  levels={
    task: {f'public SAC at {steps:,}': published.SAC[task, steps].mean}
    for task, steps in (('walker_walk', 200_000), ('cheetah_run', 100_000))
  },
)
GROUPS = {'ratings': RATINGS, 'truth': TRUTH}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
  """The command line; ends with a sentence where it is wrong."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--group', choices=GROUPS, default='ratings')
  parser.add_argument('--tasks', default='', help="comma-separated; default: group's")
  parser.add_argument('--arms', default='', help="comma-separated; default: group's")
  parser.add_argument('--seeds', type=int, default=5)
  parser.add_argument('--steps', type=int, default=0, help="default: the group's")
  parser.add_argument('--preset', default='', help="flag file in place of the group's")
  parser.add_argument('--engine', default='auto', help='what moves the bodies')
  parser.add_argument('--suffix', default='', help='added to file names')
  parser.add_argument('--draw_only', action='store_true')
  options = parser.parse_args(argv)
  group = GROUPS[options.group]
  tasks = options.tasks or ','.join(group.tasks)
  arms = options.arms or ','.join(group.default_arms)
  options.tasks = choices.split(parser, 'tasks', tasks, ())
  options.arms = choices.split(parser, 'arms', arms, group.arms)
  choices.check_at_least(parser, 'seeds', options.seeds, 1)
  choices.check_at_least(parser, 'steps', options.steps, 0)
  for task in options.tasks:
    if task not in group.steps and not options.steps and not options.draw_only:
      parser.error(
        f'--tasks={task} has no length of its own; try --steps=256000, or'
        f' {", ".join(group.steps)}.'
      )
  return options


def path_of(task: str, arm: str, options: argparse.Namespace) -> pathlib.Path:
  """The file of an arm's results."""
  return RESULTS / f'{task}-{arm}{options.suffix}.json'


def flags_of(task: str, arm: str, options: argparse.Namespace) -> list[str]:
  """What is trained, without where it is kept."""
  group = GROUPS[options.group]
  return [
    f'--preset={options.preset or group.preset}',
    f'--task={task}',
    f'--engine={options.engine}',
    *group.arms[arm],
    *group.tasks.get(task, []),
    f'--num_seeds={options.seeds}',
    f'--total_env_steps={options.steps or group.steps[task]}',
    '--tensorboard=false',
  ]


def check(options: argparse.Namespace) -> None:
  """Checks all arms before the first is run.

  Raises:
    ValueError: in one sentence, if a task or flags are wrong, or a file holds results
      of other flags than those asked for.
  """
  for task in options.tasks:
    envs.make(task, engine=options.engine)
    for arm in options.arms:
      asked = launch.parse(flags_of(task, arm, options))
      path = path_of(task, arm, options)
      if path.exists():
        check_same(path.name, json.loads(path.read_text()), asked)


def check_same(name: str, record: Mapping[str, Any], asked: methods.Config) -> None:
  """Checks that results were made with the flags asked for.

  Flags that a record of an older release lacks count as equal, for nobody could have
  set them then, and so do those that the method does not read.

  Args:
    name: of the record's file.
    record: what it holds.
    asked: what shall be drawn.

  Raises:
    ValueError: names what differs, both ways.
  """
  was, wanted = parse_flags(record['flags']), launch.flag_values(asked)
  matter = _flags_read(asked) - set(launch.FREE)
  first = [flag for flag in _WORDS if flag in matter]
  differ = [
    flag
    for flag in [*first, *(f for f in wanted if f in matter and f not in first)]
    if flag in was and was[flag] != wanted[flag]
  ]
  if differ:
    raise ValueError(
      f'{name} holds {_said(differ, was)}, not {_said(differ, wanted)}; give another'
      ' --suffix, or draw what is there with --draw_only.'
    )


_WORDS = {'total_env_steps': 'steps', 'num_seeds': 'seeds'}
_MOST_SAID = 4


def _flags_read(config: methods.Config) -> set[str]:
  """Flags that matter to the method of a configuration."""
  return {
    flag_name(section, field.name)
    for section, options in methods.SECTIONS.items()
    for field in dataclasses.fields(options)
    if is_read(config.recipe, section, field.name)
  }


def _said(names: Sequence[str], values: Mapping[str, str]) -> str:
  """As in `100,000 steps, 2 seeds, --preset=fast`; the first of them where many."""
  said = [
    f'{int(values[n]):,} {_WORDS[n]}' if n in _WORDS else f'--{n}={values[n]}'
    for n in names[:_MOST_SAID]
  ]
  more = len(names) - _MOST_SAID
  return ', '.join(said) + (f' and {more} more flags' if more > 0 else '')


def run_arm(task: str, arm: str, options: argparse.Namespace) -> None:
  """Trains one arm unless its file is there; `check` has looked into that."""
  path = path_of(task, arm, options)
  if path.exists():
    print(f'{path.name} is there')
    return
  kept = [f'--run_dir={RUNS / path.stem}', '--resume']
  run, trained = running.train(PROGRAM, [*flags_of(task, arm, options), *kept])
  columns = metrics.read(run.root)
  record = {
    'task': task,
    'arm': arm,
    'flags': run.flags.read_text().splitlines(),
    'command': 'python experiments/learning_curves.py ' + ' '.join(sys.argv[1:]),
    'seconds': round(trained.seconds, 1),
    'manifest': json.loads(run.manifest.read_text()),
    'env_steps': columns['env_steps'].astype(int).tolist(),
    'episode_return': _rounded(columns['episode_return'], 2),
    'evaluation': _rounded(trained.evaluation.returns, 2),
  }
  if trained.evaluation.success is not None:
    record['success'] = trained.evaluation.success.tolist()
  if trained.q_error is not None:
    error = trained.q_error._asdict()
    record['q_error'] = {name: _rounded(value, 4) for name, value in error.items()}
  record |= {name: _rounded(columns[name], 4) for name in WATCHED if name in columns}
  RESULTS.mkdir(parents=True, exist_ok=True)
  files.replace(path, (json.dumps(record, allow_nan=False) + '\n').encode())


def _rounded(values: Any, digits: int) -> Any:
  """Nested lists of numbers; null where one is not finite."""
  return metrics.to_json(np.round(np.asarray(values, float), digits))


WATCHED = (
  'evaluation_return',
  'evaluation_success',
  'success_rate',
  'saturation',
  'kl/room',
  'kl/gradient_scale',
  'kl/signal_share',
  'wall_seconds',
  'learned_return',
  'held_out_accuracy',
  'held_out_rank_correlation',
  'reward_correlation',
  'reward_accuracy',
  'pairs_asked',
  'meta_gradient_norm',
  'supervised_gradient_norm',
  'temperature',
  'class_counts',
  'answer_counts',
  'labels_asked',
  'kl/action',
  'kl/state',
  'kl/gradient_ratio',
  'kl/gate_open',
  'policy/entropy',
  'policy/saturation',
)


def load(group: Group, task: str, suffix: str) -> dict[str, dict]:
  records = {}
  for arm in group.arms:
    path = RESULTS / f'{task}-{arm}{suffix}.json'
    if path.exists():
      records[arm] = json.loads(path.read_text())
  return records


def curve(record: dict) -> Curve:
  return where_all_ended(
    np.asarray(record['env_steps']), np.asarray(record['episode_return'], float)
  )


def draw(name: str, tasks: list[str], suffix: str) -> None:
  """The picture and the tables, from the files and simulated random episodes."""
  group = GROUPS[name]
  panels, levels, lines = {}, {}, []
  for task in tasks:
    records = load(group, task, suffix)
    if not records:
      continue
    panels[task] = {arm: curve(record) for arm, record in records.items()}
    random = random_return(task)
    levels[task] = {'random policy': float(random.mean()), **group.levels.get(task, {})}
    lines += table(group, task, records, random)
  if not panels:
    raise SystemExit('no finished arm to draw; run without --draw_only first.')
  seeds = {c.returns.shape[1] for curves in panels.values() for c in curves.values()}
  said = 'Bands: 95 % Student intervals' if max(seeds) > 2 else 'Means'
  picture = plot(
    RESULTS / f'{name}{suffix}.png',
    panels,
    levels=levels,
    notes=[
      f'{said} over {"/".join(map(str, sorted(seeds)))} seeds.',
      *group.notes,
    ],
  )
  text = '\n'.join(lines) + '\n'
  (RESULTS / f'{name}{suffix}.md').write_text(text)
  print(text)
  print(picture)


def table(
  group: Group, task: str, records: dict[str, dict], random: np.ndarray
) -> list[str]:
  """Rows of Markdown: returns of each arm, and paired differences.

  Training returns are of the steps that all arms have taken.
  """
  steps = min(r['env_steps'][-1] for r in records.values())
  watched = 'labels by class' if group is RATINGS else 'Q error, standardised'
  lines = [
    f'**{task}**, training returns of the last tenth of {steps:,} steps',
    '',
    '| arm | seeds | training return | deterministic evaluation | after steps |'
    f' {watched} |',
    '|---|---|---|---|---|---|',
    f'| random policy | | | {mean_interval(random)} | | |',
  ]
  finals, evaluations = {}, {}
  for arm, record in records.items():
    finals[arm] = curve(record).until(steps).final()
    evaluations[arm] = np.asarray(record['evaluation'], float).mean(axis=1)
    note = label_histogram(record) if group is RATINGS else q_error(record)
    lines.append(
      f'| {arm} | {len(finals[arm])} | {mean_interval(finals[arm])} |'
      f' {mean_interval(evaluations[arm])} | {record["env_steps"][-1]:,} | {note} |'
    )
  if group is TRUTH:
    lines += [
      f'| SAC of 1024 x 2, pytorch_sac | 3 | | {value} | {at:,} | |'
      for (name, at), value in published.SAC.items()
      if name == task and at <= steps
    ]
  for first, second in group.differences:
    if first in finals and second in finals:
      if not same_until_taught(records[first], records[second]):
        lines.append(f'| {first} minus {second} | | not paired | | | |')
        continue
      lines.append(
        f'| {first} minus {second}, paired | |'
        f' {paired_difference(finals[first], finals[second])} |'
        f' {paired_difference(evaluations[first], evaluations[second])} | | |'
      )
  return [*lines, '']


def same_until_taught(first: dict, second: dict) -> bool:
  """Whether seeds of both arms are the same runs until the first label.

  They are where the same program made them; then their differences are paired.
  """

  def before_labels(record: dict) -> np.ndarray:
    (flag,) = (f for f in record['flags'] if f.startswith('--feedback_pretrain_steps='))
    early = np.asarray(record['env_steps']) <= int(flag.partition('=')[2])
    return np.asarray(record['episode_return'], float)[early]

  starts = before_labels(first), before_labels(second)
  return np.isfinite(starts[0]).any() and np.array_equal(*starts, equal_nan=True)


def q_error(record: dict) -> str:
  """Squared error of the critics against Monte-Carlo returns, mean and interval."""
  if 'q_error' not in record:
    return ''
  return str(mean_interval(np.asarray(record['q_error']['standardised'], float)))


def label_histogram(record: dict) -> str:
  """Ratings of each class after the last session, mean over seeds."""
  rows = [row for row in record.get('class_counts', []) if row[0][0] is not None]
  if not rows:
    return ''
  return ' / '.join(f'{count:.0f}' for count in np.mean(rows[-1], axis=0))


def main() -> None:
  options = arguments(sys.argv[1:])
  if not options.draw_only:
    with flags.usage_errors(PROGRAM):
      check(options)
    for task in options.tasks:
      for arm in options.arms:
        run_arm(task, arm, options)
  draw(options.group, options.tasks, options.suffix)


if __name__ == '__main__':
  main()
