"""How a function meets `jax.vmap`, where the default rule would be wasteful."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

Tree = TypeVar('Tree')


def select_rows(mask: jax.Array, new: Tree, old: Tree) -> Tree:
  """Rows of `new` where `mask` is set, of `old` elsewhere.

  Args:
    mask: [...] bool.
    new: pytree, leaves [..., *].
    old: pytree like `new`.
  """

  def select(x: jax.Array, y: jax.Array) -> jax.Array:
    where = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    return jnp.where(where, x, y)

  return jax.tree.map(select, new, old)


def update_rows_if_any(
  function: Callable[[Any], Tree], mask: jax.Array, operand: Any, default: Tree
) -> Tree:
  """Rows of `function(operand)` where `mask` is set, of `default` elsewhere.

  `function` runs only if some row of some member of every enclosing `jax.vmap` is
  set: the predicate is one scalar, so that the branch stays a branch. A plain
  `lax.cond` would become a select under vmap and always run. Where one member
  needs it, it runs for all members.

  Args:
    function: pure; maps `operand` to a pytree like `default`. It may close over
      constants, not over values that are being traced: pass these in `operand`.
    mask: [N] bool.
    operand: any pytree of arrays.
    default: pytree, leaves [N, ...].

  Returns:
    A pytree like `default`.
  """

  @custom_vmap
  def guarded(mask: jax.Array, operand: Any, default: Tree) -> Tree:
    return jax.lax.cond(
      mask.any(),
      lambda: select_rows(mask, function(operand), default),
      lambda: default,
    )

  @guarded.def_vmap
  def batched(axis_size: int, in_batched: list[Any], *args: Any) -> tuple[Tree, Any]:
    mask, operand, default = _broadcast(axis_size, in_batched, args)
    # Once more through the guard, so that the next vmap outside finds it too.
    out = update_rows_if_any(jax.vmap(function), mask, operand, default)
    return out, jax.tree.map(lambda _: True, out)

  return guarded(mask, operand, default)


def fold_vmap(function: Callable[..., Tree]) -> Callable[..., Tree]:
  """Makes `function` see one batch axis, however many `jax.vmap` surround it.

  Args:
    function: pure; its arguments' and results' leaves all lead with one batch axis,
      [N, ...], whose rows do not affect each other. It may close over constants, not
      over values that are being traced.

  Returns:
    The same function, which under vmap of size S runs once, on [S * N, ...].
  """

  @custom_vmap
  def folded(*args: Any) -> Tree:
    return function(*args)

  @folded.def_vmap
  def batched(axis_size: int, in_batched: list[Any], *args: Any) -> tuple[Tree, Any]:
    args = _broadcast(axis_size, in_batched, args)
    # Sizes written out: -1 is undefined where another axis is empty, as `act` is.
    flat = jax.tree.map(lambda x: x.reshape(axis_size * x.shape[1], *x.shape[2:]), args)
    out = fold_vmap(function)(*flat)
    out = jax.tree.map(
      lambda x: x.reshape(axis_size, x.shape[0] // axis_size, *x.shape[1:]), out
    )
    return out, jax.tree.map(lambda _: True, out)

  return folded


def one_seed_at_a_time(function: Callable[..., Any]) -> Callable[..., Any]:
  """On CPU, visits the seeds of a `jax.vmap` one after the other.

  A seed's matrix products fill all cores; batched over seeds they take a slower
  kernel and leave the cache. Accelerators take all seeds at once.
  """
  if jax.default_backend() != 'cpu':
    return function
  return jax.custom_batching.sequential_vmap(function)


def _broadcast(
  axis_size: int, in_batched: list[Any], args: tuple[Any, ...]
) -> tuple[Any, ...]:
  """Arguments of a vmap rule, the unbatched ones repeated along the new axis."""

  def broadcast(x: jax.Array, is_batched: bool) -> jax.Array:
    return x if is_batched else jnp.broadcast_to(x, (axis_size, *x.shape))

  return jax.tree.map(broadcast, args, tuple(in_batched))
