"""The main job in one command: learn a DM Control task from ratings, never a reward.

Trains RbRL-KL and RbRL (three seeds each, one compiled program each) with a scripted
rater, and PPO on the true reward to compare with; prints a table, draws the curves
and films the learned policy.

  python experiments/demo.py [any flag of rlfb-train]
"""

import pathlib
import sys
import time
from collections.abc import Sequence

import numpy as np
from curves import plot, random_return, read_curve

from rlfb_jax.bin import evaluate, flags, launch
from rlfb_jax.training import export, loop, returns
from rlfb_jax.training.intervals import mean_interval, paired_difference
from rlfb_jax.training.run import train_run

NAMES = {'rbrl_kl': 'RbRL-KL', 'rbrl': 'RbRL', 'ppo': 'PPO on the true reward'}


def main(argv: Sequence[str]) -> None:
  """Runs the demo; flags given by the user win over the demo's preset."""
  started = time.monotonic()
  root = pathlib.Path('runs') / time.strftime('demo-%Y%m%d-%H%M%S')
  results = {}
  for method in NAMES:
    with flags.usage_errors('demo'):
      begun = launch.begin(
        [
          '--preset=demo',
          *argv,
          f'--method={method}',
          f'--run_dir={root / method}',
        ]
      )
    results[method] = train_run(*begun).trained.evaluation.returns

  env = begun.env
  random = random_return(env.name)
  print(f'\n{env.name}, return of deterministic episodes (95 % interval)')
  print(f'  {"random policy":24s} {mean_interval(random)}')
  for method, name in reversed(NAMES.items()):
    print(f'  {name:24s} {mean_interval(results[method].mean(axis=1))}')
  seeds = results['rbrl'].shape[0]
  if seeds > 1:
    difference = paired_difference(
      results['rbrl_kl'].mean(axis=1), results['rbrl'].mean(axis=1)
    )
    print(f'  {"RbRL-KL minus RbRL":24s} {difference}  paired over {seeds} seeds')

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
