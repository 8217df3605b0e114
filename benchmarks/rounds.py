"""Several programs take turns until a time budget is spent."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

LEAST_ROUNDS, MOST_ROUNDS = 3, 7


class Program(NamedTuple):
  """Something that is timed.

  Attributes:
    name: as in the tables.
    run: does it so many times and waits; the same work each time.
    units: of what is counted (updates, steps, passes) in one of these times.
    least: times in a sample, at least.
  """

  name: str
  run: Callable[[int], object]
  units: float = 1.0
  least: int = 1


class Samples(NamedTuple):
  """What one program took.

  Attributes:
    seconds: per unit, one value a round.
    times: of `run` in a sample.
  """

  seconds: list[float]
  times: int


def alternate(programs: Sequence[Program], seconds: float) -> dict[str, Samples]:
  """Runs the programs in turn, so that a machine that slows down slows all of them.

  Samples are as long as the budget allows and equally long for all programs.

  Args:
    programs: with names of their own.
    seconds: to spend, compilation excluded; at least `LEAST_ROUNDS` rounds are taken
      in any case.
  """
  sample = seconds / (MOST_ROUNDS * len(programs))
  times = {}
  for program in programs:
    program.run(program.least)  # Compiles.
    once = _timed(program, program.least)
    times[program.name] = max(program.least, math.floor(sample / once))
  found: dict[str, list[float]] = {program.name: [] for program in programs}
  start = time.perf_counter()
  for number in range(MOST_ROUNDS):
    if number >= LEAST_ROUNDS and time.perf_counter() - start > seconds:
      break
    for program in programs:
      each = _timed(program, times[program.name])
      found[program.name].append(each / program.units)
  return {name: Samples(values, times[name]) for name, values in found.items()}


def _timed(program: Program, times: int) -> float:
  start = time.perf_counter()
  program.run(times)
  return (time.perf_counter() - start) / times


class Clock:
  """Says on stderr what is under way and how long the rest will take."""

  def __init__(self, planned: Sequence[float]):
    """Starts now.

    Args:
      planned: seconds of each measurement to come, in proportion to each other.
    """
    self._planned = list(planned)
    self._start = time.monotonic()
    self._done = 0

  @property
  def seconds(self) -> float:
    """Since the start."""
    return time.monotonic() - self._start

  def announce(self, what: str) -> None:
    """One measurement begins."""
    passed, rest = sum(self._planned[: self._done]), sum(self._planned[self._done :])
    factor = self.seconds / passed if passed else 1.0
    self._done += 1
    print(
      f'[{self._done:2d}/{len(self._planned)}] {what:44s} about'
      f' {max(1, round(rest * factor / 60))} min left',
      file=sys.stderr,
      flush=True,
    )
