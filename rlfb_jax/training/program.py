"""An algorithm as compiled programs: one for each piece, all seeds in each.

The only place where a method meets `jax.jit`, `jax.vmap` and devices.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from rlfb_jax.core.types import Metrics
from rlfb_jax.methods.algorithm import Algorithm, PerKind, Session
from rlfb_jax.training.placement import Placement


class Compiled(NamedTuple):
  """An algorithm's functions, mapped over seeds and compiled when first called.

  States are donated: after a call the old one is gone. Metrics can be read on every
  host.

  Attributes:
    init: `rows -> state`, leaves [S, ...].
    shapes: `rows -> state` as `jax.ShapeDtypeStruct`, with where each leaf lies.
    chunks: by phase, `state -> (state, metrics)`.
    session: `(state, wanted, strategies) -> (state, metrics)`, or None.
    diagnose: `state -> (state, metrics)`, or None.
    events: by name, `state -> (state, metrics)`.
    read: makes a program of any other function of one seed's state; it leaves the
      state alone, and its results can be read on every host.
    placement: where states live; None for one device.
  """

  init: Callable[[Any], Any]
  shapes: Callable[[Any], Any]
  chunks: dict[str, Callable[[Any], tuple[Any, Metrics]]]
  session: Callable[[Any, PerKind, PerKind], tuple[Any, Metrics]] | None
  diagnose: Callable[[Any], tuple[Any, Metrics]] | None
  events: dict[str, Callable[[Any], tuple[Any, Metrics]]]
  read: Callable[[Callable[[Any], Any]], Callable[[Any], Any]]
  placement: Placement | None = None


def compile_algorithm(
  algorithm: Algorithm, placement: Placement | None = None
) -> Compiled:
  """Maps every function over a leading seed axis and jits it.

  Args:
    algorithm: of one seed.
    placement: which devices take which seeds, and which part of their data; None for
      one device.
  """
  make = _here() if placement is None else _spread(placement)
  session = algorithm.session
  return Compiled(
    init=make.init(algorithm.init),
    shapes=make.shapes(algorithm.init),
    chunks={name: make.step(chunk) for name, chunk in algorithm.chunks.items()},
    session=None if session is None else make.session(session),
    diagnose=make.step(algorithm.diagnose) if algorithm.diagnose else None,
    events={name: make.step(event) for name, event in algorithm.events.items()},
    read=make.read,
    placement=placement,
  )


class _Makers(NamedTuple):
  """How functions of one seed become programs for all."""

  init: Callable[..., Callable[..., Any]]
  shapes: Callable[..., Callable[..., Any]]
  step: Callable[..., Callable[..., Any]]
  session: Callable[..., Callable[..., Any]]
  read: Callable[..., Callable[..., Any]]


def _here() -> _Makers:
  """On the first device."""

  def make_session(session: Session) -> Callable[..., Any]:
    fused = functools.partial(_scripted_session, session)

    @functools.partial(jax.jit, donate_argnums=0, static_argnums=2)
    def program(
      state: Any, wanted: PerKind, strategies: PerKind
    ) -> tuple[Any, Metrics]:
      return jax.vmap(lambda s: fused(s, wanted, strategies))(state)

    return program

  return _Makers(
    init=lambda function: jax.jit(jax.vmap(function)),
    shapes=lambda function: functools.partial(jax.eval_shape, jax.vmap(function)),
    step=lambda function: jax.jit(jax.vmap(function), donate_argnums=0),
    session=make_session,
    read=lambda function: jax.jit(jax.vmap(function)),
  )


def _spread(placement: Placement) -> _Makers:
  """On a mesh."""

  def shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    def program(rows: Any) -> Any:
      state = jax.eval_shape(placement.map(function), rows)
      return jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        state,
        placement.state(state),
      )

    return program

  def init(function: Callable[..., Any]) -> Callable[..., Any]:
    def program(rows: Any) -> Any:
      # Hosts start from equal rows, of which each keeps its own.
      rows = jax.device_put(rows, placement.rows)
      where = jax.tree.map(lambda x: x.sharding, shapes(function)(rows))
      return jax.jit(placement.map(function), out_shardings=where)(rows)

    return program

  def make_session(session: Session) -> Callable[..., Any]:
    fused = functools.partial(_scripted_session, session)

    @functools.cache
    def program(strategies: PerKind) -> Callable[..., Any]:
      return _Step(placement, lambda s, wanted: fused(s, wanted, strategies))

    return lambda state, wanted, strategies: program(strategies)(state, wanted)

  return _Makers(
    init=init,
    shapes=shapes,
    step=functools.partial(_Step, placement),
    session=make_session,
    read=lambda f: jax.jit(placement.map(f), out_shardings=placement.results),
  )


class _Step:
  """`(state, ...) -> (state, metrics)` whose state comes back to where it lay.

  Its program is made at the first call, which shows what is in a state. Left to
  itself the compiler might put the new state elsewhere, and the next call would
  compile again.
  """

  def __init__(self, placement: Placement, function: Callable[..., Any]):
    self._placement = placement
    self._function = function
    self._program: Callable[..., Any] | None = None

  def __call__(self, state: Any, *shared: Any) -> tuple[Any, Metrics]:
    if self._program is None:
      where = self._placement.state(state), self._placement.results
      mapped = self._placement.map(self._function)
      self._program = jax.jit(mapped, donate_argnums=0, out_shardings=where)
    return self._program(state, *shared)


def _scripted_session(
  session: Session, state: Any, wanted: PerKind, strategies: PerKind
) -> tuple[Any, Metrics]:
  """Propose, teach and absorb in one program: no person has to be waited for."""
  state, queries, teach_key = session.propose(state, strategies)
  answers = session.teach(queries, teach_key)
  return session.absorb(state, queries, answers, wanted)
