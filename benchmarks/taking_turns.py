"""Things that are timed in turns, as often as a budget of seconds allows."""

import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from measure import Compilations, timed

ROUNDS = 5


class Piece(NamedTuple):
  """Something to be timed.

  Attributes:
    name: as in the tables.
    run: `n -> anything`: does it n times and waits.
    per: units in one time; the samples are seconds per unit.
    least: times in a sample, at least, so that what a call costs by itself is small.
  """

  name: str
  run: Callable[[int], object]
  per: int = 1
  least: int = 1


class Samples(NamedTuple):
  """What came of it.

  Attributes:
    seconds: per unit, one value a round, by name.
    times: how often a piece ran in each sample.
    compiled: programs that were compiled while the clock ran; should be 0.
  """

  seconds: dict[str, list[float]]
  times: dict[str, int]
  compiled: int


def take_turns(
  pieces: Sequence[Piece],
  budget: float,
  compilations: Compilations,
  rounds: int = ROUNDS,
) -> Samples:
  """Warms everything up, then times round by round; a drift meets all alike.

  Args:
    pieces: what takes turns.
    budget: seconds for all rounds; a slow piece may exceed it by its `least`.
    compilations: of this process.
    rounds: samples of each piece; fewer, but 2 at least, where the budget is short.
  """
  most = budget / 2 / len(pieces)
  once = {p.name: _seconds_once(p, most, compilations) for p in pieces}
  shortest = sum(once[p.name] * p.least for p in pieces)
  rounds = max(2, min(rounds, int(budget / shortest)))
  share = budget / rounds / len(pieces)
  times = {p.name: max(p.least, int(share / once[p.name])) for p in pieces}
  seconds: dict[str, list[float]] = {p.name: [] for p in pieces}
  compiled = compilations.count
  for _ in range(rounds):
    for piece in pieces:
      n = times[piece.name]
      start = time.perf_counter()
      piece.run(n)
      seconds[piece.name].append((time.perf_counter() - start) / (n * piece.per))
  return Samples(seconds, times, compilations.count - compiled)


def _seconds_once(piece: Piece, most: float, compilations: Compilations) -> float:
  """Compiles, and says about how long one time takes.

  Args:
    piece: which.
    most: seconds that a sample has at most. What takes longer will run its `least`
      times, and no second run has to tell how long exactly.
    compilations: of this process.
  """
  run = functools.partial(piece.run, piece.least)
  first = timed(run, compilations)
  took = first.seconds - first.compiling
  if took <= most:
    took = timed(run, compilations).seconds
  return took / piece.least


class Progress:
  """Says on stderr what is being measured and how long the rest will take."""

  def __init__(self, budgets: Sequence[float]):
    """Takes the seconds that each group may measure, compilation not counted."""
    self._budgets = list(budgets)
    self._done = 0
    self._start = time.monotonic()

  def next(self, label: str) -> None:
    """A group begins."""
    passed = time.monotonic() - self._start
    spent = sum(self._budgets[: self._done])
    # Compilation doubles the time; what has been seen is better than that guess.
    factor = passed / spent if spent else 2.0
    left = factor * sum(self._budgets[self._done :])
    print(
      f'[{self._done + 1}/{len(self._budgets)}] {label}: {passed:.0f} s passed,'
      f' about {left:.0f} s left',
      file=sys.stderr,
      flush=True,
    )
    self._done += 1


class Group(Protocol):
  """Pieces that take turns: made only when their turn comes, dropped after it."""

  @property
  def facts(self) -> dict[str, str]:
    """What tells it from other groups; kept beside its samples."""

  @property
  def make(self) -> Callable[[], list[Piece]]:
    """The pieces."""

  @property
  def budget(self) -> float:
    """Seconds for all rounds."""


def measure(
  groups: Sequence[Group],
  facts: Mapping[str, Any],
  out: pathlib.Path,
  markdown: Callable[[dict[str, Any]], str],
) -> None:
  """Measures group after group, and prints the tables.

  Args:
    groups: in their order.
    facts: of the whole, JSON values, kept beside the samples.
    out: raw samples, written anew after each group; the tables go beside it.
    markdown: the tables of what is in that file.
  """
  compilations = Compilations()
  started = time.monotonic()
  results: dict[str, Any] = {**facts, 'groups': []}
  progress = Progress([group.budget for group in groups])
  for group in groups:
    progress.next(', '.join(group.facts.values()))
    samples = take_turns(group.make(), group.budget, compilations)
    results['groups'].append({**group.facts, **samples._asdict()})
    results['minutes'] = round((time.monotonic() - started) / 60, 1)
    out.write_text(json.dumps(results, indent=1) + '\n')
  text = markdown(results)
  out.with_suffix('.md').write_text(text)
  print(text)
