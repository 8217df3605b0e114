"""What deterministic evaluation found: a table for people, a file for programs."""

import json
import pathlib
from typing import Any

import numpy as np

from rlfb_jax.training.intervals import mean_interval
from rlfb_jax.training.q_error import QError

FILE = 'evaluation.json'


def describe(task: str, returns: np.ndarray) -> str:
  """One line a policy, and one for all.

  Args:
    task: name.
    returns: [S, episodes].
  """
  lines = [f'{task}: true return, mean and 95 % interval']
  for index, row in enumerate(returns):
    lines.append(f'  policy {index}: {mean_interval(row)}  over {len(row)} episodes')
  if len(returns) > 1:
    total = mean_interval(returns.mean(axis=1))
    lines.append(f'  all:      {total}  over {len(returns)} policies')
  return '\n'.join(lines)


def median_policy(returns: np.ndarray) -> int:
  """The policy of median mean return (the lower of two): fit to stand for all.

  Args:
    returns: [S, episodes].
  """
  return int(np.argsort(returns.mean(axis=1))[(len(returns) - 1) // 2])


def save(
  folder: pathlib.Path,
  task: str,
  seed: int,
  returns: np.ndarray,
  q_error: QError | None = None,
) -> None:
  """Writes every episode's return.

  Args:
    folder: the run's report; made if it is not there.
    task: name.
    seed: randomness of the starts.
    returns: [S, episodes].
    q_error: of the critics, each [S].
  """
  folder.mkdir(parents=True, exist_ok=True)
  record: dict[str, Any] = {'task': task, 'seed': seed, 'returns': returns.tolist()}
  if q_error is not None:
    record['q_error'] = {name: v.tolist() for name, v in q_error._asdict().items()}
  (folder / FILE).write_text(json.dumps(record) + '\n')
