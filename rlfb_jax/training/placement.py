"""Where a run lives: seeds spread over devices, the data of each split over more.

A mesh has two axes. Over `seed` whole seeds are spread: each device computes its own,
and they never speak. Over `data` one seed's environments and batches are split: the
compiler propagates the split from the state's leaves through the program, and adds up
gradients. Which leaves are split is the rule of `_data_axes`; all others, such as
parameters, replay and labels, every device of the axis holds whole.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rlfb_jax.core.mesh import DATA, SEED, over_parts
from rlfb_jax.core.suggest import check_known
from rlfb_jax.envs.base import EnvState
from rlfb_jax.feedback.archive import Archive
from rlfb_jax.methods.collect import EpisodeClock
from rlfb_jax.methods.config import Config

_AXES = (SEED, DATA)
_WHOLE = -1


@dataclasses.dataclass(frozen=True)
class Placement:
  """A mesh of devices, and what lies where on it.

  Attributes:
    mesh: axes `seed` and `data`, devices of all hosts.
  """

  mesh: Mesh

  def map(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.vmap` over rows, each group of devices along `seed` with its own rows.

    Args:
      function: of one row's tree, and of more trees that all rows share.

    Returns:
      The same function, of a tree whose leaves lead with [S].
    """
    # Where nothing is left to the compiler, it shall have nothing to decide.
    axes = {SEED} if self.mesh.shape[DATA] > 1 else set(_AXES)

    def mapped(rows: Any, *shared: Any) -> Any:
      return over_parts(
        jax.vmap(function, in_axes=(0, *[None] * len(shared))),
        (rows,),
        *shared,
        axis=SEED,
        devices=self.mesh.shape[SEED],
        mesh=self.mesh,
        axis_names=axes,
      )

    mapped.__name__ = getattr(function, '__name__', mapped.__name__)
    return mapped

  @functools.cached_property
  def rows(self) -> NamedSharding:
    """Of arrays [S, ...] that are spread by their rows alone."""
    return NamedSharding(self.mesh, PartitionSpec(SEED))

  def put(self, tree: Any, where: Any) -> Any:
    """Brings arrays to where they shall be; on several hosts, each its own parts.

    Args:
      tree: arrays that this host can read; the same on all hosts.
      where: a tree like it of `NamedSharding`, as `state` gives it.
    """

    def put(leaf: Any, where: NamedSharding) -> jax.Array:
      if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        numbers = put(jax.random.key_data(leaf), where)
        return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(leaf))
      array = np.asarray(leaf)
      return jax.make_array_from_callback(array.shape, where, lambda i: array[i])

    return jax.tree.map(put, tree, where)

  def state(self, state: Any) -> Any:
    """Of each leaf of a run's state.

    Args:
      state: arrays or shapes, leaves [S, ...].

    Returns:
      A tree like `state` of `NamedSharding`.

    Raises:
      ValueError: if the mesh does not divide the rows or the environments.
    """
    spread, split = (self.mesh.shape[axis] for axis in _AXES)

    def sharding(leaf: Any, axis: int) -> NamedSharding:
      check_seeds(leaf.shape[0], spread)
      if axis == _WHOLE or split == 1:
        return self.rows
      check_environments(leaf.shape[axis], split)
      spec = PartitionSpec(SEED, *[None] * (axis - 1), DATA)
      return NamedSharding(self.mesh, spec)

    return jax.tree.map(sharding, state, _data_axes(state))


def place_run(config: Config, num_rows: int) -> Placement | None:
  """The placement of a run, checked before anything is built.

  Args:
    config: of the run.
    num_rows: what runs side by side: seeds, for a plain run.

  Raises:
    ValueError: in one sentence, as `make_placement`; also if the mesh does not divide
      the environments of a seed.
  """
  placement = make_placement(config.run.mesh, num_rows)
  if placement is not None:
    on_policy = config.recipe.agent == 'ppo'
    part = config.ppo if on_policy else config.replay
    flag = f'--{"ppo" if on_policy else "replay"}_num_envs'
    check_environments(part.num_envs, placement.mesh.shape[DATA], flag)
  return placement


def make_placement(
  text: str, num_seeds: int, devices: list[jax.Device] | None = None
) -> Placement | None:
  """The placement that `--mesh` means; None where one device has it all.

  Args:
    text: such as `seed:4,data:2`; an axis that is not named has one device. Empty:
      the first device, or where there are more hosts all devices along `seed`.
    num_seeds: S, rows to be spread.
    devices: of all hosts; by default all there are.

  Raises:
    ValueError: in one sentence, if text is no mesh, or seeds or devices do not fit.
  """
  devices = jax.devices() if devices is None else devices
  hosts = len({device.process_index for device in devices})
  if not text and hosts > 1:
    text = f'{SEED}:{len(devices)}'
  spread, split = sizes = parse_mesh(text)
  used = spread * split
  if used > len(devices):
    raise ValueError(
      f'--mesh={text} takes {used} devices, of which there are {len(devices)}; try'
      f' --mesh=seed:{_largest_divisor(num_seeds, len(devices))}.'
    )
  if hosts > 1 and used != len(devices):
    raise ValueError(
      f'--mesh={text} takes {used} of {len(devices)} devices, but each host must have a'
      f' part; try --mesh=seed:{len(devices)} with a multiple of {len(devices)} seeds.'
    )
  check_seeds(num_seeds, spread)
  if used == 1:
    return None
  auto = (AxisType.Auto,) * len(_AXES)
  return Placement(jax.make_mesh(sizes, _AXES, auto, devices=devices[:used]))


def check_environments(num_envs: int, split: int, flag: str = 'num_envs') -> None:
  """Raises ValueError where so many devices cannot share a seed's environments.

  Args:
    num_envs: of one seed.
    split: devices along `data`.
    flag: that sets `num_envs`.
  """
  _check_divides(flag, num_envs, 'split', DATA, split)


def check_seeds(num_seeds: int, spread: int) -> None:
  """Raises ValueError where so many devices cannot share the seeds evenly."""
  _check_divides('--num_seeds', num_seeds, 'spread', SEED, spread)


def _check_divides(flag: str, number: int, verb: str, axis: str, parts: int) -> None:
  """Names the nearest numbers and the nearest mesh where the parts are not equal."""
  if number % parts:
    below = number // parts * parts
    counts = ' or '.join(str(n) for n in (below, below + parts) if n)
    raise ValueError(
      f'{flag}={number} cannot be {verb} evenly over --mesh={axis}:{parts}; try'
      f' {flag}={counts}, or --mesh={axis}:{_largest_divisor(number, parts)}.'
    )


def parse_mesh(text: str) -> tuple[int, int]:
  """Devices along `seed` and `data`.

  Raises:
    ValueError: in one sentence.
  """
  sizes = dict.fromkeys(_AXES, 1)
  for part in filter(None, text.split(',')):
    axis, _, size = part.strip().partition(':')
    check_known('axis of --mesh', axis, _AXES)
    if not size.isdecimal() or int(size) < 1:
      raise ValueError(
        f'--mesh={text} needs a number of devices for {axis}; try --mesh={axis}:2.'
      )
    sizes[axis] = int(size)
  return sizes[SEED], sizes[DATA]


def _largest_divisor(number: int, limit: int) -> int:
  """The largest divisor of `number` that is at most `limit`."""
  return next(n for n in range(min(number, limit), 0, -1) if number % n == 0)


def _data_axes(state: Any) -> Any:
  """Which axis of each leaf of a state is split over `data`: the environments'.

  Environments, the clocks of their episodes and the archive of what happened in them
  are split. Every device adds all of a step's transitions to its own replay buffer,
  because a ring that is split by its rows would have to be gathered to be written or
  drawn from.

  Returns:
    A tree like `state` of axes, counted after the leading [S], or `_WHOLE`.
  """

  def axes(node: Any) -> Any:
    match node:
      case EnvState():
        return jax.tree.map(lambda _: 1, node).replace(key=_WHOLE)
      case EpisodeClock():
        return jax.tree.map(lambda _: 1, node)
      case Archive(steps=steps):  # [S, L, N, ...]
        whole = jax.tree.map(lambda _: _WHOLE, node)
        return dataclasses.replace(whole, steps=jax.tree.map(lambda _: 2, steps))
    return _WHOLE

  split = (EnvState, EpisodeClock, Archive)
  return jax.tree.map(axes, state, is_leaf=lambda node: isinstance(node, split))
