"""What deterministic evaluation found: a table for people, a file for programs."""

import json
import pathlib
from typing import Any

import numpy as np

from rlfb_jax.training.intervals import mean_interval
from rlfb_jax.training.q_error import QError

FILE = 'evaluation.json'  # Of the run itself, at its end.


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


def file_of(task: str, seed: int) -> str:
  """Name of the file of an evaluation that is not the run's own."""
  return f'evaluation-{task}-{seed}.json'


def save(
  path: pathlib.Path,
  task: str,
  seed: int,
  returns: np.ndarray,
  q_error: QError | None = None,
) -> None:
  """Writes every episode's return.

  Args:
    path: of the file, in the run's report, which is made if it is not there.
    task: name.
    seed: randomness of the starts; of a run's own evaluation its first seed, which
      tells whose it is.
    returns: [S, episodes].
    q_error: of the critics, each [S].
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  record: dict[str, Any] = {'task': task, 'seed': seed, 'returns': returns.tolist()}
  if q_error is not None:
    record['q_error'] = {name: v.tolist() for name, v in q_error._asdict().items()}
  path.write_text(json.dumps(record) + '\n')


def read_own(folder: pathlib.Path, task: str, seed: int) -> dict[str, Any]:
  """What `save` wrote at the end of a run.

  Args:
    folder: the run's report.
    task: that the run was trained on.
    seed: its first.

  Returns:
    `task`, `seed`, `returns` and, of a run with critics, `q_error`, as plain lists.

  Raises:
    OSError: if the run has left none.
    ValueError: if it is of another task or seed: once `rlfb-evaluate` wrote there too.
  """
  record: dict[str, Any] = json.loads((folder / FILE).read_text())
  own = {'task': task, 'seed': seed}
  found = {name: record.get(name, value) for name, value in own.items()}
  if found != own:
    raise ValueError(
      f'{folder / FILE} is not the evaluation of the run itself, task={task}'
      f' seed={seed}; name it {file_of(**found)}.'
    )
  return record
