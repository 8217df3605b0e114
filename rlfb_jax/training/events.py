"""Events for TensorBoard, written by the thread that has them.

tensorboardX's own writer hands them to another thread, which an error of the disk ends;
who has more of them then waits for ever.
"""

import contextlib
import pathlib
import time

from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter


class Events:
  """One file of events; `scalar` and `flush` raise OSError where the disk does."""

  def __init__(self, folder: pathlib.Path, purge_step: int | None = None):
    """Opens a file of its own.

    Args:
      folder: of a run's events.
      purge_step: TensorBoard leaves out what earlier files say from this step on.
    """
    # The number, because two sessions may start in the same second.
    session = len(list(folder.iterdir()))
    name = f'events.out.tfevents.{int(time.time())}.{session}'
    self._writer = RecordWriter(str(folder / name))
    self._write(file_version='brain.Event:2')
    if purge_step is not None and session:
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._write(step=purge_step, session_log=start)

  def scalar(self, name: str, value: float, step: int) -> None:
    """Adds a point to the curve `name`."""
    self._write(step=step, summary=summary.scalar(name, value))

  def flush(self) -> None:
    """Puts all on disk."""
    self._writer.flush()

  def close(self) -> None:
    """Closes the file; what a full disk does not take is given up."""
    with contextlib.suppress(OSError):
      self._writer.close()

  def _write(self, **fields: object) -> None:
    event = event_pb2.Event(wall_time=time.time(), **fields)
    self._writer.write(event.SerializeToString())
