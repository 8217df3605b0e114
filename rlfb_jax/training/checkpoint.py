"""Checkpoints: the whole state of all seeds, and where the host was.

  checkpoints/STEP/state/   the arrays, by Orbax
  checkpoints/STEP/host/    format version, clock, each leaf's type and checksum

STEP is the environment steps of each seed, plus the stages done of the next iteration.
Orbax writes into a folder of another name, which gets its own once it is complete. What
happens to it later (a disk that lies, a copy that was cut short) the checksums tell.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from orbax import checkpoint as ocp

from rlfb_jax.training import hosts, leaves, quiet
from rlfb_jax.training.clock import Clock
from rlfb_jax.training.progress import tell
from rlfb_jax.training.retention import NewestAndBest

FORMAT_VERSION = 1
_STATE, _HOST = 'state', 'host'


class UnusableError(ValueError):
  """No checkpoint can be used; a sentence says why and what to do."""


class Restored(NamedTuple):
  """Where a run goes on.

  Attributes:
    state: of all seeds.
    clock: of the host.
  """

  state: Any
  clock: Clock


class Checkpoints:
  """Writes checkpoints beside training, and finds the newest that is whole.

  A save returns as soon as the arrays are the host's; files are written by threads.
  Whether they could be written is known when the next save begins, or from `wait`.
  Saving and waiting may be asked for from any thread.

  Attributes:
    saved: steps and stages where a run would go on that ended now: of the newest
      checkpoint that is known to be whole, (0, 0) without one.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    *,
    minutes: float | None = 5.0,
    interval: int = 0,
    kept: int = 2,
    before_save: Callable[[Any], None] = lambda state: None,
    say: Callable[[str], None] = tell,
  ):
    """Opens the folder, which is made if it is not there.

    Args:
      folder: of these checkpoints alone. Saves that were cut short are removed.
      minutes: between saves; 0 saves after every stage, None leaves it to `interval`.
      interval: environment steps of each seed between saves beside those; 0 for none.
      kept: how many of the newest stay, beside the one of the best score.
      before_save: called with the state, to bring other files up to date.
      say: how people hear of damage.
    """
    self._folder = folder.absolute()
    self._seconds = None if minutes is None else 60 * minutes
    self._interval = interval
    self._before_save = before_save
    self._say = say
    self._saved_at = time.monotonic()
    self.saved: tuple[int, int] = (0, 0)
    self._tried: tuple[int, int] = (0, 0)  # The position of the last save.
    self._step: int | None = None  # The save that is being written.
    self._scores: dict[int, float | None] = {}
    self._lock = threading.RLock()
    quiet.install()
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        cleanup_tmp_directories=True,
        preservation_policy=NewestAndBest(kept, self._scores),
      ),
    )

  def steps(self) -> list[int]:
    """Names of the checkpoints, oldest first; they may be damaged."""
    return sorted(self._manager.all_steps())

  def due(self, clock: Clock, after_long: bool = False) -> bool:
    """Whether it is time for a save; asked between stages.

    Args:
      clock: where the run is.
      after_long: the last stage was so long that a stop would not wait for another.
    """
    if clock.position == self._tried:
      return False
    interval = self._interval
    if interval and clock.env_steps // interval > self._tried[0] // interval:
      return True
    waited = time.monotonic() - self._saved_at
    return self._seconds is not None and (after_long or waited >= self._seconds)

  def save(self, state: Any, clock: Clock) -> None:
    """Saves, unless this position is saved; the state may be donated afterwards.

    A disk that is full costs a checkpoint and not the run: people are told, the
    checkpoints before stay, and the next save comes when it is due.
    """
    with self._lock:
      self._save(state, clock)

  def _save(self, state: Any, clock: Clock) -> None:
    self.wait()
    # Hosts save together; one alone may know of a checkpoint that was not written.
    if not hosts.anywhere(clock.position != self.saved):
      return
    self._tried, self._saved_at = clock.position, time.monotonic()
    step = max([sum(clock.position), *(s + 1 for s in self.steps())])
    problem = None
    try:
      self._before_save(state)
    except OSError as error:
      problem = error
    if hosts.anywhere(problem is not None):
      self._lost(step, problem)
      return
    # On CPUs these are views of the state's memory, which XLA does not write to while
    # they live: a donated buffer that somebody looks at is copied first.
    arrays = leaves.pack(state)
    sums = leaves.checksums(arrays)
    record = {
      'format_version': FORMAT_VERSION,
      'clock': clock.to_json(),
      'leaves': [[*leaf, sums.get(leaf.path)] for leaf in leaves.leaves_of(state)],
    }
    args = ocp.args.Composite(
      **{
        _STATE: ocp.args.PyTreeSave(arrays),
        _HOST: ocp.args.JsonSave({**record, 'crc32': _crc(record)}),
      }
    )
    self._scores[step] = clock.score
    self._step = step
    try:
      self._manager.save(step, args=args, force=True)
    except quiet.DISK_ERRORS as error:
      self._lost(step, error)

  def wait(self) -> None:
    """Returns when the last save is on disk, or people know that it is not."""
    with self._lock:
      step = self._step
      if step is None:
        return
      try:
        self._manager.wait_until_finished()
      except quiet.DISK_ERRORS as error:
        self._lost(step, error)
        return
      self.saved, self._step = self._tried, None

  def _lost(self, step: int, problem: Exception | None) -> None:
    """Tells that a save failed, and removes what was written of it."""
    self._step = None
    self._scores.pop(step, None)
    with contextlib.suppress(*quiet.DISK_ERRORS):
      self._manager.wait_until_finished()  # Other parts of it may be on their way.
    if hosts.is_first():
      for part in self._folder.glob(f'{step}.*'):
        shutil.rmtree(part, ignore_errors=True)
    reason = 'on another host' if problem is None else _reason(problem)
    self._say(
      f'checkpoint {step} could not be written ({reason}); a resumed run would go on'
      f' from step {self.saved[0]:,}.'
    )

  def restore(
    self, like: Any, place: Callable[[Any], Any] = lambda state: state
  ) -> Restored | None:
    """The newest checkpoint that is whole, or None where none was ever completed.

    Newer ones, which are not, are set aside as `damaged-STEP`.

    Args:
      like: the state wanted, arrays or `jax.ShapeDtypeStruct`s; see `jax.eval_shape`.
      place: puts the state on the devices where it shall be.

    Raises:
      UnusableError: if there are checkpoints and none is whole, or the newest is of
        another state, or of a later format.
    """
    damaged: list[int] = []
    for step in reversed(self.steps()):
      try:
        restored, problem = self._read(step, like, place), None
      except _DamagedError as error:
        restored, problem = None, error
      if hosts.anywhere(restored is None):
        damaged.append(step)
        reason = 'on another host.' if problem is None else problem
        self._say(f'checkpoint {step} in {self._folder} is damaged: {reason}')
        continue
      assert restored is not None
      if damaged:
        self._say(f'going on from checkpoint {step} instead.')
      if hosts.is_first():
        self._set_aside(damaged)
      hosts.anywhere(False)  # All wait for the first.
      self._manager.reload()
      for other in self.steps():
        self._scores[other] = self._score(other)
      self._tried = self.saved = restored.clock.position
      return restored
    if damaged:
      raise UnusableError(
        f'all checkpoints in {self._folder} are damaged; nothing was changed. Bring one'
        ' back from a copy, or start again in another folder.'
      )
    return None

  def _set_aside(self, steps: Sequence[int]) -> None:
    for step in steps:
      aside = self._folder / f'damaged-{step}'
      shutil.rmtree(aside, ignore_errors=True)
      os.replace(self._folder / str(step), aside)

  def _read(self, step: int, like: Any, place: Callable[[Any], Any]) -> Restored:
    record = self._host(step)
    if record['format_version'] > FORMAT_VERSION:
      raise UnusableError(
        f'checkpoint {step} in {self._folder} has'
        f' format_version={record["format_version"]}, which is newer than'
        f' {FORMAT_VERSION}; use a newer rlfb_jax.'
      )
    saved = [leaves.Leaf(p, tuple(s), d) for p, s, d, _ in record['leaves']]
    different = leaves.first_difference(saved, leaves.leaves_of(like))
    if different is not None:
      raise UnusableError(
        f'checkpoint {step} in {self._folder} is of another state: {different}.'
        ' Resume it with the code and the flags that it was made with.'
      )
    sums = {path: crc for path, *_, crc in record['leaves'] if crc is not None}
    arrays = self._arrays(step, [leaf.path for leaf in saved if 0 not in leaf.shape])
    for path, crc in leaves.checksums(arrays).items():
      if sums.get(path, crc) != crc:
        raise _DamagedError(f'{path} does not have its checksum.')
    state = place(leaves.unpack(like, arrays))
    return Restored(state, Clock.from_json(record['clock']))

  def _host(self, step: int) -> dict[str, Any]:
    try:
      args = ocp.args.Composite(**{_HOST: ocp.args.JsonRestore()})
      record = dict(self._manager.restore(step, args=args)[_HOST])
      crc = record.pop('crc32')
    except Exception as error:  # Orbax raises many kinds.
      raise _DamagedError(_first_line(error)) from None
    if crc != _crc(record):
      raise _DamagedError('its clock does not have its checksum.')
    return record

  def _arrays(self, step: int, paths: Sequence[str]) -> dict[str, np.ndarray]:
    as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    try:
      args = ocp.args.PyTreeRestore(restore_args=dict.fromkeys(paths, as_numpy))
      restored = self._manager.restore(step, args=ocp.args.Composite(**{_STATE: args}))
    except Exception as error:  # As above, and tensorstore more.
      raise _DamagedError(_first_line(error)) from None
    arrays: dict[str, np.ndarray] = restored[_STATE]
    missing = [path for path in paths if path not in arrays]
    if missing:
      raise _DamagedError(f'{missing[0]} is missing.')
    return arrays

  def _score(self, step: int) -> float | None:
    try:
      return Clock.from_json(self._host(step)['clock']).score
    except _DamagedError:
      return None


class _DamagedError(Exception):
  """A checkpoint that cannot be used, in a sentence."""


def _crc(record: dict[str, Any]) -> int:
  return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _reason(error: Exception) -> str:
  """The system's words where it was the system; TensorStore wraps them in paths."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  number = re.search(r"os_error_code='(\d+)'", str(error))
  return os.strerror(int(number[1])) if number else _first_line(error)


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
