"""One line that says how far a run is and how long it will take.

On a terminal the line is rewritten in place; elsewhere (a log file, a pipe) a line
is printed only now and then, so that logs stay short. Where people can be told nothing,
such as in a log file on a full disk, a run goes on without.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import numpy as np


def tell(text: str) -> None:
  """Tells people, apart from results; in vain where standard error takes nothing."""
  with contextlib.suppress(OSError):
    print(text, file=sys.stderr, flush=True)


class Progress:
  """Progress of `total_steps` environment steps.

  Speed and time left are measured from the end of the first chunk on, because the
  first contains compilation; and over a moving window, because phases differ.
  """

  def __init__(
    self,
    total_steps: int,
    keys: Sequence[str] = (),
    label: str = '',
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    sparse_seconds: float = 10.0,
    speed_factor: int = 1,
  ):
    """Starts the clock.

    Args:
      total_steps: environment steps of one seed at the end.
      keys: metrics worth a place on the line; the mean over seeds is shown.
      label: what is running, e.g. `rbrl walker_walk`.
      stream: where to print; standard error by default.
      clock: seconds.
      sparse_seconds: least time between lines that are not on a terminal.
      speed_factor: number of seeds; speed counts the steps of all.
    """
    self._total = max(int(total_steps), 1)
    self._keys = tuple(keys)
    self._label = label
    self._stream = sys.stderr if stream is None else stream
    self._clock = clock
    self._sparse = sparse_seconds
    self._factor = speed_factor
    self._tty = bool(getattr(self._stream, 'isatty', lambda: False)())
    self._start = clock()
    self._marks: list[tuple[float, int]] = []  # (seconds, steps) after each chunk.
    self._printed = -np.inf
    self._width = 0

  def update(self, env_steps: int, values: Mapping[str, Any] | None = None) -> None:
    """Says that `env_steps` are done, with the metrics of the last chunk."""
    now = self._clock()
    self._marks = [*self._marks[-20:], (now, int(env_steps))]
    done = env_steps >= self._total
    if self._tty or done or now - self._printed >= self._sparse:
      self._printed = now
      self._print(self.line(values or {}))

  def line(self, values: Mapping[str, Any]) -> str:
    """The line itself."""
    now, steps = self._marks[-1]
    parts = [f'{self._label} ' if self._label else '']
    parts.append(f'{min(steps / self._total, 1.0):4.0%}  {_count(steps)} steps')
    speed = self.steps_per_second()
    if speed is not None:
      parts.append(f'  {_count(speed * self._factor)} steps/s')
      parts.append(f'  {_duration((self._total - steps) / speed)} left')
    else:
      parts.append(f'  started in {_duration(now - self._start)}')
    for key in self._keys:
      if key in values:
        parts.append(f'  {key} {_mean(values[key])}')
    return ''.join(parts)

  def steps_per_second(self) -> float | None:
    """Steps of one seed a second over the last chunks, None before the second."""
    (t0, s0), (t1, s1) = self._marks[0], self._marks[-1]
    return (s1 - s0) / (t1 - t0) if t1 > t0 and s1 > s0 else None

  def close(self) -> None:
    """Ends the line, so that what is printed next starts a new one."""
    if self._tty and self._width:
      self._write('\n')
      self._width = 0

  def _print(self, text: str) -> None:
    if self._tty:
      self._write('\r' + text.ljust(self._width))
      self._width = len(text)
    else:
      self._write(text + '\n')

  def _write(self, text: str) -> None:
    with contextlib.suppress(OSError):
      self._stream.write(text)
      self._stream.flush()


def _count(number: float) -> str:
  for limit, unit in ((1e6, 'M'), (1e3, 'k')):
    if number >= limit:
      return f'{number / limit:.3g}{unit}'
  return f'{number:.0f}'


def _duration(seconds: float) -> str:
  seconds = max(round(seconds), 0)
  minutes, hours = seconds // 60, seconds // 3600
  if hours:
    return f'{hours}h{minutes % 60:02d}m'
  return f'{minutes}m{seconds % 60:02d}s' if minutes else f'{seconds}s'


def _mean(value: Any) -> str:
  array = np.asarray(value, np.float64)
  finite = array[np.isfinite(array)]
  return f'{finite.mean():.4g}' if finite.size else 'nan'
