"""A state as named arrays that can be stored, checked and turned back.

Nothing is known of a state but that it is a pytree of arrays. Storage has no typed
keys and no arrays without entries: keys are stored as their numbers, and what is empty
is made anew.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any


class Leaf(NamedTuple):
  """What is known of a leaf beside its numbers.

  Attributes:
    path: e.g. `.agent.params.actor`.
    shape: with the seed axis.
    dtype: e.g. `float32`; of a typed key e.g. `key<fry>`.
  """

  path: str
  shape: tuple[int, ...]
  dtype: str


def leaves_of(tree: Tree) -> list[Leaf]:
  """All leaves, in the tree's order.

  Args:
    tree: arrays or `jax.ShapeDtypeStruct`s.
  """
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return [
    Leaf(jax.tree_util.keystr(path), tuple(x.shape), str(x.dtype)) for path, x in flat
  ]


def pack(tree: Tree) -> dict[str, jax.Array]:
  """path -> array, of all leaves that have entries."""
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path): jax.random.key_data(x) if _is_key(x) else x
    for path, x in flat
    if x.size
  }


def unpack(like: Tree, arrays: Mapping[str, np.ndarray]) -> Tree:
  """The tree from its arrays.

  Args:
    like: the tree wanted, of arrays or `jax.ShapeDtypeStruct`s.
    arrays: as `pack` gave them.
  """

  def leaf(path: Any, x: Any) -> jax.Array:
    if not x.size:
      return jnp.zeros(x.shape, x.dtype)
    array = jnp.asarray(arrays[jax.tree_util.keystr(path)])
    if _is_key(x):
      return jax.random.wrap_key_data(
        array, impl=jax.random.key_impl(jnp.empty((), x.dtype))
      )
    return array

  return jax.tree_util.tree_map_with_path(leaf, like)


def checksums(arrays: Mapping[str, Any]) -> dict[str, int | None]:
  """CRC-32 of each array's bytes; None where other hosts hold a part of it."""
  return {
    name: _crc(np.asarray(x)) if getattr(x, 'is_fully_addressable', True) else None
    for name, x in arrays.items()
  }


def first_difference(saved: Sequence[Leaf], wanted: Sequence[Leaf]) -> str | None:
  """Says which leaf differs first; None where all agree."""
  have = {leaf.path: leaf for leaf in saved}
  for leaf in wanted:
    found = have.pop(leaf.path, None)
    if found is None:
      return f'{leaf.path} is not in it'
    if found != leaf:
      return (
        f'{leaf.path} is {found.dtype}{list(found.shape)} in it and'
        f' {leaf.dtype}{list(leaf.shape)} here'
      )
  return f'{next(iter(have))} is in it and not here' if have else None


def _is_key(x: Any) -> bool:
  return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _crc(array: np.ndarray) -> int:
  return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
