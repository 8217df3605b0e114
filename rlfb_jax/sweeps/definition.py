"""What a sweep varies: a grid of flags, arms that differ in several flags, and seeds.

Everything stays text here, as on the command line; what a flag means is asked of the
program that trains.
"""

import dataclasses
import itertools
import pathlib
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from rlfb_jax.core.suggest import check_known

# What the file may say, and what each thing is.
_KEYS: Mapping[str, type] = {'seeds': int, 'flags': dict, 'grid': dict, 'arms': dict}
_OF_THE_SWEEP = {
  'num_seeds': 'the number of seeds is --seeds',
  'run_dir': 'each job has a folder of its own in --out',
  'resume': 'jobs are always resumed',
  'coordinator_address': 'a job runs on one host; hosts share jobs by --shard',
  'num_processes': 'a job runs on one host; hosts share jobs by --shard',
  'process_id': 'a job runs on one host; hosts share jobs by --shard',
}


@dataclasses.dataclass(frozen=True)
class Cell:
  """One combination: what is trained with every seed.

  Attributes:
    arm: name of the arm, '' where there are none.
    flags: flag -> value, as written, in the order in which they were given.
  """

  arm: str
  flags: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Sweep:
  """A definition.

  Attributes:
    seeds: of each cell, counted from `--seed`.
    base: arguments that all runs share.
    grid: flag -> its values; every combination is a cell.
    arms: name -> flags; the grid is run for each.
  """

  seeds: int = 1
  base: tuple[str, ...] = ()
  grid: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
  arms: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    if self.seeds < 1:
      raise ValueError(f'--seeds={self.seeds} must be at least 1; try 1.')
    named = [*self.grid, *(flag for arm in self.arms.values() for flag in arm)]
    named += [argument.lstrip('-').partition('=')[0] for argument in self.base]
    for flag in named:
      if flag in _OF_THE_SWEEP:
        raise ValueError(f'--{flag} is not for a sweep: {_OF_THE_SWEEP[flag]}.')
    for name, arm in self.arms.items():
      for flag in arm:
        if flag in self.grid:
          raise ValueError(
            f'--{flag} is set by arm {name} and by the grid; leave it out of one.'
          )

  def cells(self) -> list[Cell]:
    """Every arm with every combination of the grid."""
    axes = [[(flag, value) for value in values] for flag, values in self.grid.items()]
    arms = self.arms or {'': {}}
    return [
      Cell(name, (*arm.items(), *combination))
      for name, arm in arms.items()
      for combination in itertools.product(*axes)
    ]

  def arguments(self, cell: Cell) -> list[str]:
    """The command line of a cell, without seeds."""
    return [*self.base, *(f'--{flag}={value}' for flag, value in cell.flags)]


def read(path: str) -> Sweep:
  """Reads a definition from TOML.

  `seeds` is a number; `[flags]` all runs share, `[grid]` has a list for each flag, and
  each `[arms.NAME]` has the flags of an arm.

  Raises:
    ValueError: in one sentence.
  """
  try:
    found = tomllib.loads(pathlib.Path(path).read_text())
  except OSError as error:
    raise ValueError(f'--file={path} cannot be read ({error.strerror}).') from None
  except tomllib.TOMLDecodeError as error:
    raise ValueError(f'--file={path} is not TOML: {error}.') from None
  for key, value in found.items():
    check_known(f'In {path}, key', key, _KEYS)
    if not isinstance(value, _KEYS[key]):
      wanted = 'a whole number' if _KEYS[key] is int else f'a table, [{key}]'
      raise ValueError(f'In {path}, {key} must be {wanted}.')
  for name, arm in found.get('arms', {}).items():
    if not isinstance(arm, dict):
      raise ValueError(f'In {path}, arm {name} must be a table, [arms.{name}].')
  return Sweep(
    seeds=found.get('seeds', 1),
    base=tuple(f'--{k}={_text(v)}' for k, v in found.get('flags', {}).items()),
    grid={k: _values(k, v) for k, v in found.get('grid', {}).items()},
    arms={
      name: {k: _text(v) for k, v in arm.items()}
      for name, arm in found.get('arms', {}).items()
    },
  )


def read_axes(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
  """Reads each by `read_axis`.

  Raises:
    ValueError: in one sentence; also if a flag has two axes.
  """
  grid: dict[str, tuple[str, ...]] = {}
  for flag, values in map(read_axis, texts):
    if flag in grid:
      every = dict.fromkeys([*grid[flag], *values])
      together = (';' if any(',' in value for value in every) else ',').join(every)
      raise ValueError(
        f'--grid={flag} is given twice; give all of its values at once, as'
        f' --grid={flag}={together}.'
      )
    grid[flag] = values
  return grid


def read_arms(texts: Sequence[str]) -> dict[str, dict[str, str]]:
  """Reads each by `read_arm`.

  Raises:
    ValueError: in one sentence; also if two arms have one name.
  """
  arms: dict[str, dict[str, str]] = {}
  for name, arm in map(read_arm, texts):
    if name in arms:
      raise ValueError(f"--arm='{name}: ...' is given twice; each needs its own name.")
    arms[name] = arm
  return arms


def read_axis(text: str) -> tuple[str, tuple[str, ...]]:
  """Reads `FLAG=VALUE,VALUE`; with a `;` anywhere that parts the values instead.

  Raises:
    ValueError: in one sentence.
  """
  flag, equals, values = text.strip().partition('=')
  parts = [v.strip() for v in values.split(';' if ';' in values else ',')]
  parts = [v for v in parts if v]
  if not equals or not flag or not parts:
    raise ValueError(
      f'--grid={text} must be a flag and its values, as kl_beta=0.1,0.3.'
    )
  return flag.lstrip('-'), _values(flag, parts)


def read_arm(text: str) -> tuple[str, dict[str, str]]:
  """Reads `NAME: FLAG=VALUE FLAG=VALUE`.

  Raises:
    ValueError: in one sentence.
  """
  name, colon, flags = text.partition(':')
  pairs = [pair.lstrip('-').partition('=') for pair in flags.split()]
  if not colon or not name.strip() or not all(equals for _, equals, _ in pairs):
    raise ValueError(
      f"--arm='{text}' must be a name and flags, as in 'strong: kl_beta=0.3 seed=7'."
    )
  arm: dict[str, str] = {}
  for flag, _, value in pairs:
    if flag in arm:
      raise ValueError(f"--arm='{text}' sets {flag} twice; leave one of them out.")
    arm[flag] = value
  return name.strip(), arm


def _values(flag: str, values: Any) -> tuple[str, ...]:
  several = isinstance(values, Sequence) and not isinstance(values, str)
  texts = tuple(_text(v) for v in (values if several else [values]))
  if not texts:
    raise ValueError(f'{flag} has no value in the grid; give one or leave it out.')
  if len(set(texts)) < len(texts):
    raise ValueError(f'{flag} has a value twice in the grid: {", ".join(texts)}.')
  return texts


def _text(value: Any) -> str:
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, list):
    return ','.join(_text(v) for v in value)
  return str(value)
