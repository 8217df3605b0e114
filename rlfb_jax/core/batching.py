"""Functions with batching rules of their own, where `jax.vmap`'s default is wasteful.

Functions with a rule of their own may not close over values that `jax.vmap` maps, such
as a hyperparameter that differs between the runs of a family: `lift` makes arguments
of them first.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.extend.core as jex_core
import jax.numpy as jnp
from jax.custom_batching import custom_vmap, sequential_vmap

Tree = TypeVar('Tree')


def lift(
  function: Callable[..., Any], *args: Any
) -> tuple[Callable[..., Any], list[jax.Array]]:
  """Makes arguments of the values being traced that `function` closes over.

  Args:
    function: pure.
    args: pytrees of arrays, as it will be called with.

  Returns:
    `lifted` and `values`, such that `lifted(values, *args)` is `function(*args)` and
    `lifted` closes over constants only. It is traced here, once, and not again.
  """
  closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
  is_traced = [isinstance(c, jax.core.Tracer) for c in closed.consts]
  values = [c for c, t in zip(closed.consts, is_traced, strict=True) if t]
  constants = [c for c, t in zip(closed.consts, is_traced, strict=True) if not t]
  structure = jax.tree.structure(shapes)

  def lifted(values: list[jax.Array], *args: Any) -> Any:
    given, own = iter(values), iter(constants)
    consts = [next(given if traced else own) for traced in is_traced]
    program = jex_core.jaxpr_as_fun(jex_core.ClosedJaxpr(closed.jaxpr, consts))
    return jax.tree.unflatten(structure, program(*jax.tree.leaves(args)))

  return lifted, values


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
    function: pure; maps `operand` to a pytree like `default`.
    mask: [N] bool.
    operand: any pytree of arrays.
    default: pytree, leaves [N, ...].

  Returns:
    A pytree like `default`.
  """
  lifted, values = lift(function, operand)
  return _update_if_any(lifted, mask, values, operand, default)


def _update_if_any(
  function: Callable[[list[jax.Array], Any], Tree],
  mask: jax.Array,
  values: list[jax.Array],
  operand: Any,
  default: Tree,
) -> Tree:
  """`update_rows_if_any` for a function that closes over constants only."""

  @custom_vmap
  def guarded(
    mask: jax.Array, values: list[jax.Array], operand: Any, default: Tree
  ) -> Tree:
    return jax.lax.cond(
      mask.any(),
      lambda: select_rows(mask, function(values, operand), default),
      lambda: default,
    )

  @guarded.def_vmap
  def batched(axis_size: int, in_batched: list[Any], *args: Any) -> tuple[Tree, Any]:
    mask, _, operand, default = _broadcast(axis_size, in_batched, args)
    values, axes = args[1], [0 if b else None for b in in_batched[1]]
    # Once more through the guard, so that the next vmap outside finds it too.
    inner = jax.vmap(function, in_axes=(axes, 0))
    out = _update_if_any(inner, mask, values, operand, default)
    return out, jax.tree.map(lambda _: True, out)

  return guarded(mask, values, operand, default)


def fold_vmap(function: Callable[..., Tree]) -> Callable[..., Tree]:
  """Makes `function` see one batch axis, however many `jax.vmap` surround it.

  Args:
    function: pure; its arguments' and results' leaves all lead with one batch axis,
      [N, ...], whose rows do not affect each other. It may close over constants, not
      over values that `jax.vmap` maps: rows of all members meet in one call.

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
  return function if jax.default_backend() != 'cpu' else in_turn(function)


def in_turn(function: Callable[..., Any]) -> Callable[..., Any]:
  """Visits the members of a `jax.vmap` one after the other, on any device."""

  def visited(*args: Any) -> Any:
    lifted, values = lift(function, *args)
    return sequential_vmap(lifted)(values, *args)

  return visited


def _broadcast(
  axis_size: int, in_batched: list[Any], args: tuple[Any, ...]
) -> tuple[Any, ...]:
  """Arguments of a vmap rule, the unbatched ones repeated along the new axis."""

  def broadcast(x: jax.Array, is_batched: bool) -> jax.Array:
    return x if is_batched else jnp.broadcast_to(x, (axis_size, *x.shape))

  return jax.tree.map(broadcast, args, tuple(in_batched))
