"""The process of one job of a sweep: `python -m rlfb_jax.bin.sweep_job FOLDER SWEEP`.

It holds the job's lock while it lives, goes on from the last checkpoint, and ends with
the sweep that started it, whose process number is the second argument.
"""

import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from rlfb_jax import methods
from rlfb_jax.bin import launch, option_flags
from rlfb_jax.methods.algorithm import Algorithm
from rlfb_jax.methods.config import Config
from rlfb_jax.sweeps import lock
from rlfb_jax.sweeps.folder import JobFolder, Order
from rlfb_jax.sweeps.runner import HELD_ELSEWHERE, STOPPED
from rlfb_jax.training import loop, run_dir
from rlfb_jax.training import run as run_lib
from rlfb_jax.training.progress import tell

_PARENT_SECONDS = 1.0


def configs_of(order: Order, folder: pathlib.Path) -> list[Config]:
  """The configuration of each row; all know how many they are and their folder."""
  shared = [*order.arguments, f'--run_dir={folder}', '--resume=true']
  shared.append(f'--num_seeds={len(order.rows)}')
  return [
    launch.parse(
      [
        *shared,
        f'--seed={row.seed}',
        *(f'--{f}={option_flags.to_text(v)}' for f, v in row.flags.items()),
      ]
    )
    for row in order.rows
  ]


def compose(configs: Sequence[Config], env: Any) -> tuple[Algorithm, Any]:
  """The algorithm of all rows, and what its `init` takes."""
  keys = jnp.concatenate([loop.seed_keys(c.run.seed, 1) for c in configs])
  family = methods.make_family(configs, env)
  if family.values:
    return family.algorithm, (keys, family.values)
  return methods.make(configs[0], env), keys


def work(folder: JobFolder, on_leave: Callable[[], None] = lambda: None) -> None:
  """Trains the rows of a job to their end.

  Args:
    folder: of the job, with its order, whose claim this process holds.
    on_leave: called before a stop ends the process where it is, see `train_run`.
  """
  order = folder.read_order()
  configs = configs_of(order, folder.root)
  env = run_lib.prepare(configs[0])
  run = launch.start_or_resume(configs[0], env, order.rows)
  if run_dir.read_finished(run) is not None:
    return
  algorithm, rows = compose(configs, env)
  run_lib.train_run(
    configs[0],
    env,
    run,
    algorithm=algorithm,
    rows=rows,
    on_leave=on_leave,
    claimed=True,
  )
  for warning in run_lib.broken_seeds(run):
    tell(warning)


def main(argv: Sequence[str]) -> None:
  """Does the job in the folder that is named, for the sweep that is."""
  folder = JobFolder(pathlib.Path(argv[0]))
  _end_with(int(argv[1]))
  claim = lock.acquire(folder.locks)
  if claim is None:
    raise SystemExit(HELD_ELSEWHERE)
  with lock.beating(claim, on_lost=lambda: os._exit(HELD_ELSEWHERE)):
    try:
      work(folder, on_leave=claim.release)
    except KeyboardInterrupt:
      raise SystemExit(STOPPED) from None


def _end_with(sweep: int) -> None:
  """A sweep that is killed leaves no job behind that nobody waits for.

  Args:
    sweep: process that started this one. It may be gone already: imports take seconds.
  """
  if os.getppid() != sweep:
    raise SystemExit(STOPPED)

  def watch() -> None:
    ended = threading.Event()
    while os.getppid() == sweep:
      ended.wait(_PARENT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=watch, name='parent', daemon=True).start()


if __name__ == '__main__':
  main(sys.argv[1:])
