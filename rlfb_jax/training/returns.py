"""What deterministic evaluation found: a table for people, a file for programs."""

import json
import pathlib
from typing import Any

import numpy as np

from rlfb_jax.training.evaluate import Episodes
from rlfb_jax.training.intervals import mean_interval
from rlfb_jax.training.q_error import QError

FILE = 'evaluation.json'  # Of the run itself, at its end.


def describe(task: str, episodes: Episodes) -> str:
  """One line a policy, and one for all.

  Args:
    task: name.
    episodes: [S, N].
  """
  returns, success = episodes
  lines = [f'{task}: true return, mean and 95 % interval']

  def rate(index: Any) -> str:
    return '' if success is None else f', success in {np.mean(success[index]):.0%}'

  for index, row in enumerate(returns):
    text = f'{mean_interval(row)}  over {len(row)} episodes'
    lines.append(f'  policy {index}: {text}{rate(index)}')
  if len(returns) > 1:
    text = f'{mean_interval(returns.mean(axis=1))}  over {len(returns)} policies'
    lines.append(f'  all:      {text}{rate(...)}')
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
  episodes: Episodes,
  q_error: QError | None = None,
) -> None:
  """Writes every episode's return and, where the task tells it, success.

  Args:
    path: of the file, in the run's report, which is made if it is not there.
    task: name.
    seed: randomness of the starts; of a run's own evaluation its first seed, which
      tells whose it is.
    episodes: [S, N].
    q_error: of the critics, each [S].
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  record: dict[str, Any] = {'task': task, 'seed': seed}
  record |= {
    name: np.asarray(value).tolist()
    for name, value in episodes._asdict().items()
    if value is not None
  }
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
    `task`, `seed`, `returns` and, where there are such, `success` and the critics'
    `q_error`, as plain lists.

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
