"""Baselines as processes of their own, which take turns with the benchmark."""

import json
import os
import pathlib
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from baselines.turns import MARK

ROOT = pathlib.Path(__file__).resolve().parents[1]


class WorkerFailed(RuntimeError):
  """A baseline ended or said nothing; the message is its last words."""


class Worker:
  """A baseline that is warm and waits.

  Attributes:
    facts: its first message: `env_steps` of an iteration, `versions` and more.
  """

  def __init__(self, command: Sequence[str], timeout: float = 600.0):
    """Starts the process and waits until it has warmed up.

    Args:
      command: what to run.
      timeout: longest wait for a message, seconds.

    Raises:
      WorkerFailed: if it does not get that far.
    """
    self._timeout = timeout
    self._errors = tempfile.TemporaryFile('w+')  # noqa: SIM115
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get('PYTHONPATH')) if p)
    try:
      self._process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._errors,
        text=True,
        # Unfiltered, because a filtered traceback does not end with its error.
        env={**os.environ, 'PYTHONPATH': path, 'JAX_TRACEBACK_FILTERING': 'off'},
      )
    except OSError as error:
      raise WorkerFailed(f'{command[0]} cannot be run ({error.strerror}).') from None
    self.facts: dict[str, Any] = self._listen()

  def iterate(self) -> float:
    """Lets it do one iteration; seconds by its own clock.

    Raises:
      WorkerFailed: if it ends instead.
    """
    assert self._process.stdin is not None
    try:
      self._process.stdin.write('go\n')
      self._process.stdin.flush()
    except BrokenPipeError:
      pass  # `_listen` says why.
    return float(self._listen()['seconds'])

  def close(self) -> None:
    """Ends the process."""
    assert self._process.stdin is not None
    self._process.kill()
    self._process.wait()
    self._errors.close()

  def __enter__(self) -> 'Worker':
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self.close()

  def _listen(self) -> dict[str, Any]:
    assert self._process.stdout is not None
    alarm = threading.Timer(self._timeout, self._process.kill)
    alarm.start()
    try:
      for line in self._process.stdout:
        if line.startswith(MARK):
          return json.loads(line.removeprefix(MARK))
    finally:
      alarm.cancel()
    self._process.wait()
    self._errors.seek(0)
    said = self._errors.read().strip().splitlines()
    self.close()
    raise WorkerFailed(said[-1] if said else 'It ended without a word.')


def command(
  python: str, script: str, task: str, sizes: dict[str, int], warmups: int
) -> list[str]:
  """The command line of a baseline.

  Args:
    python: interpreter that has its packages.
    script: file in `benchmarks/baselines`.
    task: as ours.
    sizes: the settings of `turns.SETTINGS`.
    warmups: untimed iterations.
  """
  path = pathlib.Path(__file__).parent / 'baselines' / script
  flags = [f'--{name}={value}' for name, value in sizes.items()]
  return [python, str(path), f'--task={task}', f'--warmups={warmups}', *flags]
