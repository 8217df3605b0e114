"""What compiled code may know of devices: an axis of the mesh, or nothing.

A program that is spread over devices is traced inside a mesh with the axes `SEED`, over
which whole seeds are spread, and `DATA`, over which the environments and batches of
each seed are split. Along `DATA` the compiler splits what it can. Two places help it:
physics that it cannot look into (`split_batch`), and the rows that a network is applied
to (`split_rows`). Nothing above them knows, and on one device both do nothing.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

SEED, DATA = 'seed', 'data'

Tree = TypeVar('Tree')


def data_devices() -> int:
  """Devices over which the compiler splits a seed's data where this is traced."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or DATA not in mesh.axis_names:
    return 1
  # Inside `split_batch` the axis is spoken for.
  by_compiler = mesh._name_to_type[DATA] == AxisType.Auto
  return mesh.shape[DATA] if by_compiler else 1


def split_batch(function: Callable[..., Tree]) -> Callable[..., Tree]:
  """Lets each device along `DATA` call `function` on its own part of the batch.

  For what the compiler would otherwise gather on every device, such as a foreign
  function, or run in step on all of them, such as a loop until the last row converges.

  Args:
    function: pure; its arguments' and results' leaves all lead with one batch axis,
      [N, ...], whose rows do not affect each other.

  Returns:
    The same function, split where the devices divide N and whole elsewhere.
  """

  def split(*args: Any) -> Tree:
    devices = data_devices()
    if devices == 1 or jax.tree.leaves(args)[0].shape[0] % devices:
      return function(*args)
    return over_parts(function, args, axis=DATA, devices=devices, axis_names={DATA})

  return split


def over_parts(
  function: Callable[..., Tree],
  rows: Any,
  *shared: Any,
  axis: str,
  devices: int,
  **kwargs: Any,
) -> Tree:
  """`jax.shard_map` of a function whose arguments and results lead with one axis.

  Args:
    function: takes the elements of `rows` and `shared`.
    rows: arguments, leaves [N, ...], of which each device has its part.
    *shared: arguments that all devices have whole.
    axis: of the mesh, which `devices` lie along.
    devices: that divide N.
    **kwargs: further ones of `jax.shard_map`.
  """
  # XLA of jax 0.11 crashes where an array without elements is an argument of a part
  # (Shardy leaves out what is not used): each device makes its own.
  leaves, structure = jax.tree.flatten(rows)

  def part(full: list[jax.Array], *shared: Any) -> Tree:
    left = iter(full)
    whole = [
      next(left)
      if x.size
      else jnp.zeros((x.shape[0] // devices, *x.shape[1:]), x.dtype)
      for x in leaves
    ]
    return function(*jax.tree.unflatten(structure, whole), *shared)

  return jax.shard_map(
    part,
    in_specs=(PartitionSpec(axis), *[PartitionSpec()] * len(shared)),
    out_specs=PartitionSpec(axis),
    check_vma=False,
    **kwargs,
  )([x for x in leaves if x.size], *shared)


def split_rows(rows: jax.Array) -> jax.Array:
  """The same batch [B, n], to be split by its rows where the devices divide B.

  What is computed from it, gradients too, the compiler then computes in parts, and
  adds up. Arrays of other ranks keep what their own history suggests.
  """
  devices = data_devices()
  if devices == 1 or rows.ndim != 2 or rows.shape[0] % devices:
    return rows
  spec = PartitionSpec(DATA, PartitionSpec.UNCONSTRAINED)
  return jax.lax.with_sharding_constraint(rows, spec)
