"""What moves the reward in MRN's bi-level step: the outer gradient, or momentum.

Trains short MRN runs on walker_walk, once for each way of taking the outer step, and
prints for every step how large the outer gradient is beside the supervised one on the
same labels, and how far r_hat moves on a batch beside its spread there.

  python experiments/outer_step.py
  python experiments/outer_step.py --arms=default   # the others stay as they were
"""

import argparse
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import choices
import kept
import running

from rlfb_jax.reward.meta_options import MetaOptions
from rlfb_jax.training import manifest, metrics

PROGRAM = 'outer_step'
RESULTS = pathlib.Path(__file__).parent / 'results' / 'outer_step.json'
FLAGS = (
  '--preset=fast_replay',
  '--method=mrn',
  '--task=walker_walk',
  '--total_env_steps=13000',
  '--pairs_pretrain_steps=4000',
  '--pairs_session_interval=3000',
  '--mrn_stop_with_budget=false',
  '--mrn_learning_rate=3e-4',
  '--tensorboard=false',
  '--eval_episodes=0',
)
# As released; the same with a gradient of zero; by an Adam of its own at the step size
# that the released one has; and by the default.
ARMS = {
  'shared_adam': ('--mrn_optimiser=shared_adam',),
  'shared_adam_zero': ('--mrn_optimiser=shared_adam', '--mrn_zero_gradient=true'),
  'own_adam': ('--mrn_optimiser=own_adam',),
  'default': (f'--mrn_learning_rate={MetaOptions().learning_rate}',),
}
WATCHED = (
  'env_steps',
  'meta_gradient_norm',
  'supervised_gradient_norm',
  'meta_reward_change',
  'meta_reward_std',
)


def run(arm: str, folder: pathlib.Path) -> dict[str, Any]:
  """Trains one arm and reads what its outer steps did."""
  running.train(PROGRAM, [*FLAGS, *ARMS[arm], f'--run_dir={folder / arm}'])
  return read(folder / arm)


def read(folder: pathlib.Path) -> dict[str, Any]:
  """The outer steps of a run: name -> one number a step."""
  columns = metrics.read(folder)
  due = columns['meta_gradient_norm'][:, 0] == columns['meta_gradient_norm'][:, 0]
  rows = {}
  for name in WATCHED:
    values = columns[name][due]
    rows[name] = (values if values.ndim == 1 else values[:, 0]).tolist()
  flags = (folder / 'flags.txt').read_text().splitlines()
  return {'flags': flags, 'outer_steps': rows}


def describe(arm: str, steps: dict[str, list[float]]) -> str:
  """One line: the ranges of both ratios."""
  gradients = [
    s / g
    for s, g in zip(
      steps['supervised_gradient_norm'], steps['meta_gradient_norm'], strict=True
    )
  ]
  moves = [
    change / std
    for change, std in zip(
      steps['meta_reward_change'], steps['meta_reward_std'], strict=True
    )
  ]
  return (
    f'{arm:18s} {len(moves)} steps; supervised over outer gradient'
    f' {min(gradients):.0f} to {max(gradients):.0f}; r_hat moves by'
    f' {min(moves):.0%} to {max(moves):.0%} of its spread'
  )


def main(argv: Sequence[str]) -> None:
  """Runs the arms that were asked for, and describes all that there are."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
  parser.add_argument('--arms', default=','.join(ARMS), help='comma-separated')
  chosen = choices.split(parser, 'arms', parser.parse_args(argv).arms, ARMS)
  with tempfile.TemporaryDirectory() as folder:
    for arm in chosen:
      arms = save(arm, run(arm, pathlib.Path(folder)))
  for arm in (arm for arm in ARMS if arm in arms):
    print(describe(arm, arms[arm]['outer_steps']))


def save(arm: str, result: dict[str, Any]) -> dict[str, Any]:
  """Writes an arm's result beside those of others, and returns all."""
  record = {'manifest': manifest.make(), **result}
  return kept.put(RESULTS, arm, record, f'start --arms={arm} again', indent=None)


if __name__ == '__main__':
  main(sys.argv[1:])
