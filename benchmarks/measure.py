"""Clocks, counters and medians."""

import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

# Everything that XLA or JAX does to a program before it runs.
_COMPILE_EVENTS = (
  '/jax/core/compile/jaxpr_trace_duration',
  '/jax/core/compile/jaxpr_to_mlir_module_duration',
  '/jax/core/compile/backend_compile_duration',
)

_CACHE_HIT = '/jax/compilation_cache/cache_hits'


class Summary(NamedTuple):
  """The median of some samples, and the smallest and the largest."""

  median: float
  low: float
  high: float

  def text(self, digits: int = 0) -> str:
    """As in `5,012 [4,950-5,101]`; only the median where all agree."""
    median, low, high = (f'{value:,.{digits}f}' for value in self)
    return median if low == high else f'{median} [{low}-{high}]'


def summarize(samples: Sequence[float]) -> Summary:
  """Median and range.

  Raises:
    ValueError: if there are no samples.
  """
  if not samples:
    raise ValueError('samples are empty; a median needs at least 1.')
  return Summary(float(np.median(samples)), float(min(samples)), float(max(samples)))


def ratio_of_rounds(above: Sequence[float], below: Sequence[float]) -> Summary | None:
  """Median and range of the ratios of rounds in which both took their turn.

  Who ended early has only the first rounds, and those are compared.

  Args:
    above: one sample a round, from the first on.
    below: the same of the other.

  Returns:
    None where there is no common round.
  """
  pairs = list(zip(above, below, strict=False))
  return summarize([a / b for a, b in pairs]) if pairs else None


def ratio_of_medians(above: Summary, below: Summary) -> Summary:
  """The ratio of what did not take turns: of medians, in the widest possible range."""
  return Summary(
    above.median / below.median, above.low / below.high, above.high / below.low
  )


BUSY = 0.5  # Load average from which something else runs.


def warn_of_load() -> float:
  """The load average before anything is measured; says so where it is not idle."""
  load = os.getloadavg()[0]
  if load > BUSY:
    print(
      f'load average is {load:.1f}: something else runs here, and the numbers will show'
      ' it.',
      file=sys.stderr,
    )
  return load


class Compilations:
  """Counts what JAX compiles in this process, from its making on.

  Attributes:
    count: programs compiled, or taken from the compilation cache.
    hits: programs taken from there.
  """

  def __init__(self) -> None:
    self.count = 0
    self.hits = 0
    self._spans: list[tuple[str, float, float]] = []
    jax.monitoring.register_event_duration_secs_listener(self._listen)
    jax.monitoring.register_event_listener(self._count_hit)

  def _listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
    del kwargs
    if event in _COMPILE_EVENTS:
      end = time.perf_counter()
      self._spans.append((event.rpartition('/')[2], end - duration_secs, end))
      self.count += event == _COMPILE_EVENTS[-1]

  def _count_hit(self, event: str, **kwargs: str | int) -> None:
    del kwargs
    self.hits += event == _CACHE_HIT

  def seconds(self, since: float = 0.0, stage: str = '') -> float:
    """Time spent on it since `time.perf_counter()` was `since`.

    Programs are traced inside one another, so that durations overlap: what counts
    is the time in which at least one was at work.

    Args:
      since: earlier work is left out.
      stage: `trace`, `lower` or `compile` alone; all by default.
    """
    names = {'trace': 'jaxpr_trace', 'lower': 'jaxpr_to', 'compile': 'backend'}
    prefix = names.get(stage, '')
    spans = sorted((a, b) for n, a, b in self._spans if n.startswith(prefix))
    total, until = 0.0, since
    for start, end in spans:
      total += max(0.0, end - max(start, until))
      until = max(until, end)
    return total


class Timed(NamedTuple):
  """How long something took, and how much of it was compilation, seconds."""

  seconds: float
  compiling: float


def timed(run: Callable[[], object], compilations: Compilations) -> Timed:
  """Runs something that waits for its results."""
  start = time.perf_counter()
  run()
  return Timed(time.perf_counter() - start, compilations.seconds(since=start))


def resident_mib() -> float:
  """Memory of this process that is in RAM, MiB."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


def name_of(what: str, num_seeds: int) -> str:
  """Of what so many seeds did in one program; a number other than 1 is said."""
  return what if num_seeds == 1 else f'{what}, {num_seeds} seeds'
