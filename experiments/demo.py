"""The main job in one command: learn a DM Control task from ratings, never a reward.

Trains RbRL-KL and RbRL (three seeds each, one compiled program each) with a scripted
rater, and PPO on the true reward to compare with; prints a table and keeps it, draws
the curves and films the learned policy.

  python experiments/demo.py [any flag of rlfb-train but --method and --run_dir]
"""

import pathlib
import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np
import running
from curves import plot, random_return, read_curve

from rlfb_jax import methods
from rlfb_jax.bin import evaluate, flags, launch
from rlfb_jax.envs.environment import MujocoEnvironment
from rlfb_jax.methods import plan
from rlfb_jax.training import export, files, loop, returns
from rlfb_jax.training.intervals import mean_interval, paired_difference
from rlfb_jax.training.run import make_environment, train_run

PROGRAM = 'demo'
NAMES = {'rbrl_kl': 'RbRL-KL', 'rbrl': 'RbRL', 'ppo': 'PPO on the true reward'}
PRESET = '--preset=demo'
OWN_FLAGS = ('method', 'run_dir', 'resume')  # What the demo itself gives its runs.


def check(argv: Sequence[str]) -> None:
  """Refuses before anything is trained what would fail, or be ignored, after it.

  Raises:
    ValueError: in one sentence.
  """
  try:
    import matplotlib  # noqa: F401  The curves at the end need it.
  except ImportError:
    raise ValueError(
      "matplotlib is not installed, which draws the curves; try pip install 'rlfb-jax"
      "[report]'."
    ) from None
  for prefix, field in flags.written(argv, methods.SECTIONS):
    if not prefix and field in OWN_FLAGS:
      raise ValueError(
        f'--{field} is set by the demo for each of its runs; leave it out, or run'
        ' rlfb-train.'
      )
  config = launch.parse([PRESET, *argv])
  if not config.run.eval_episodes:
    raise ValueError(
      '--eval_episodes=0 must be at least 1, for evaluations are what the demo'
      ' compares; try --eval_episodes=10.'
    )
  if not isinstance(make_environment(config), MujocoEnvironment):
    raise ValueError(
      f'--task={config.run.task} has no body to film; try --task=cartpole_swingup.'
    )


def before_ratings(begun: launch.Begun) -> np.ndarray | None:
  """Training return at the end of unsupervised pre-training, [S].

  None where no episode ended before the first session.
  """
  asked = plan.first_session(begun.config, begun.env)
  curve = read_curve(begun.run.root).until(asked)
  return curve.returns[-1] if len(curve.returns) else None


def train(argv: Sequence[str], root: pathlib.Path) -> dict[str, launch.Begun]:
  """Trains all methods, one after the other, each in a folder below `root`."""
  runs = {}
  for method in NAMES:
    own = [f'--method={method}', f'--run_dir={root / method}']
    with flags.usage_errors(PROGRAM):
      runs[method] = launch.begin([PRESET, *argv, *own])
    with running.said(PROGRAM, runs[method].run):
      train_run(*runs[method])
  return runs


def returns_of(begun: launch.Begun) -> np.ndarray:
  """The deterministic evaluation at the end of a run, [S, episodes]."""
  options = begun.config.run
  record = returns.read_own(begun.run.report, options.task, options.seed)
  return np.asarray(record['returns'], float)


def table(
  task: str,
  random: np.ndarray,
  early: np.ndarray | None,
  results: Mapping[str, np.ndarray],
) -> list[str]:
  """What was earned, in lines.

  Args:
    task: its name.
    random: returns of a random policy, [E].
    early: training returns before the first rating, [S], or None.
    results: method -> returns of deterministic episodes, [S, E].
  """
  lines = [
    f'{task}, return of deterministic episodes (95 % interval)',
    f'  {"random policy":24s} {mean_interval(random)}',
  ]
  if early is not None:
    lines.append(f'  {"before any rating":24s} {mean_interval(early)}  in training')
  for method, name in reversed(NAMES.items()):
    lines.append(f'  {name:24s} {mean_interval(results[method].mean(axis=1))}')
  seeds = results['rbrl'].shape[0]
  if seeds > 1:
    difference = paired_difference(
      results['rbrl_kl'].mean(axis=1), results['rbrl'].mean(axis=1)
    )
    lines.append(
      f'  {"RbRL-KL minus RbRL":24s} {difference}  paired over {seeds} seeds'
    )
  return lines


def main(argv: Sequence[str]) -> None:
  """Runs the demo; flags given by the user win over the demo's preset."""
  if flags.wants_help(argv):
    print(flags.help_text(__doc__ or '', methods.SECTIONS))
    return
  started = time.monotonic()
  with flags.usage_errors(PROGRAM):
    check(argv)
  root = pathlib.Path('runs') / time.strftime('demo-%Y%m%d-%H%M%S')
  runs = train(argv, root)
  results = {method: returns_of(begun) for method, begun in runs.items()}
  env = runs['rbrl_kl'].env
  random = random_return(env.name)
  early = before_ratings(runs['rbrl_kl'])
  lines = table(env.name, random, early, results)
  files.replace(root / 'table.txt', ('\n'.join(lines) + '\n').encode())
  print('', *lines, sep='\n')

  picture = plot(
    root / 'curves.png',
    {env.name: {n: read_curve(root / m) for m, n in NAMES.items()}},
    levels={env.name: {'random policy': float(np.mean(random))}},
  )
  print(f'\ncurves: {picture}')
  shown = returns.median_policy(results['rbrl_kl'])
  said = evaluate.film(
    env,
    export.load_policy(root / 'rbrl_kl').seed(shown),
    root / 'rbrl_kl',
    loop.evaluation_key(),
    evaluate.EvaluateOptions(),
  )
  print(f'median RbRL-KL policy: {said}')
  print(f'the demo took {time.monotonic() - started:.0f} s')


if __name__ == '__main__':
  main(sys.argv[1:])
