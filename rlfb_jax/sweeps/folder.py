"""A job's folder: what it is, how far it is, and why it failed.

It is a run's folder (`training/run_dir.py`) with these beside:
job.json   command line and rows, each with the name of its arm, for reports
locks/     who works on it
log.txt    what the job printed
error.txt  why it failed, until it succeeds
"""

import enum
import json
import os
import pathlib
import platform
from typing import Any, NamedTuple

from rlfb_jax.sweeps import lock
from rlfb_jax.sweeps.jobs import Job
from rlfb_jax.training import run_dir
from rlfb_jax.training.run_dir import Row


class State(enum.StrEnum):
  """How far a job is."""

  DONE = 'done'
  RUNNING = 'running'
  FAILED = 'failed'
  STARTED = 'started'
  MISSING = 'missing'


class Order(NamedTuple):
  """What a job's process is told, through `job.json`."""

  arguments: list[str]
  rows: list[Row]


class JobFolder(NamedTuple):
  """Paths of one job."""

  root: pathlib.Path

  @property
  def locks(self) -> pathlib.Path:
    """Claims, see `sweeps/lock.py`."""
    return self.root / 'locks'

  @property
  def log(self) -> pathlib.Path:
    """What the job printed, over all starts."""
    return self.root / 'log.txt'

  @property
  def error(self) -> pathlib.Path:
    """Why the last start failed."""
    return self.root / 'error.txt'

  @property
  def order(self) -> pathlib.Path:
    """What is to be done."""
    return self.root / 'job.json'

  def state(self) -> State:
    """How far the job is, as far as the folder tells."""
    if self.finished() is not None:
      return State.DONE
    if lock.is_held(self.locks):
      return State.RUNNING
    if self.error.is_file():
      return State.FAILED
    run = run_dir.RunDir(self.root)
    return State.STARTED if run.manifest.is_file() else State.MISSING

  def finished(self) -> dict[str, Any] | None:
    """Steps and seconds of a finished job, or None."""
    return run_dir.read_finished(run_dir.RunDir(self.root))

  def write_order(self, job: Job) -> None:
    """Makes the folder and says what is to be done in it; the same every time."""
    self.root.mkdir(parents=True, exist_ok=True)
    record = {
      'arguments': list(job.arguments),
      'rows': [
        {'seed': row.seed, 'flags': dict(row.flags), 'arm': arm}
        for row, arm in zip(job.rows, job.arms, strict=True)
      ],
    }
    # Another start may be writing the same at this moment.
    new = self.order.with_name(f'{self.order.name}.{os.getpid()}.{platform.node()}')
    new.write_text(json.dumps(record, indent=2) + '\n')
    os.replace(new, self.order)

  def read_order(self) -> Order:
    """What is to be done here."""
    record = json.loads(self.order.read_text())
    rows = [Row(row['seed'], row['flags']) for row in record['rows']]
    return Order(record['arguments'], rows)
