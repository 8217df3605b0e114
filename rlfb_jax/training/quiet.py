"""Filters what storage repeats of an error that is reported in one sentence.

That sentence, of a checkpoint write that failed, is said elsewhere. Orbax logs the same
error once per thread; asyncio logs 'exception was never retrieved' for the other
arrays; TensorStore's callback may arrive after its event loop closed; at exit, pending
writes complain about interpreter shutdown. Those repeats are filtered here.
"""

import functools
import logging
import sys
import traceback
from types import TracebackType

# What a disk that is full or away raises. TensorStore, which writes the arrays, turns
# every error of the system into a ValueError.
DISK_ERRORS = (OSError, ValueError)


@functools.cache
def install() -> None:
  """Leaves these out from now on, in the whole process; all else is said as before."""
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(_is_news)
  hook = sys.unraisablehook

  def say_news(unraisable: 'sys.UnraisableHookArgs') -> None:
    if not _is_late_answer(unraisable.exc_value, unraisable.exc_traceback):
      hook(unraisable)

  sys.unraisablehook = say_news


def _is_news(record: logging.LogRecord) -> bool:
  error = record.exc_info[1] if record.exc_info else None
  late = isinstance(error, RuntimeError) and 'interpreter shutdown' in str(error)
  if error is None or not (late or isinstance(error, DISK_ERRORS)):
    return True
  names = _files(error.__traceback__)
  # What nobody waited for has passed no frame.
  unasked = record.name == 'asyncio' and not names
  return not unasked and not any('orbax' in name for name in names)


def _is_late_answer(error: BaseException | None, trace: TracebackType | None) -> bool:
  """Native code alone calls asyncio's loops without a frame of its own."""
  names = _files(trace)
  return (
    isinstance(error, RuntimeError)
    and str(error) == 'Event loop is closed'
    and all('asyncio' in name for name in names)
  )


def _files(trace: TracebackType | None) -> list[str]:
  return [frame.filename for frame in traceback.extract_tb(trace)]
