"""An algorithm as compiled programs: one for each piece, all seeds in each.

The only place where a method meets `jax.jit`, `jax.vmap` and devices.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from rlfb_jax.core.precision import with_precision
from rlfb_jax.core.types import Metrics
from rlfb_jax.methods.algorithm import Algorithm, PerKind, Session
from rlfb_jax.training import hosts
from rlfb_jax.training.placement import Placement


class Compiled(NamedTuple):
  """An algorithm's functions, mapped over seeds and compiled when first called.

  States are donated: after a call the old one is gone. Metrics can be read on every
  host. None may be called while another function is traced: the settings of a program
  are its own, and JAX takes them on GPUs for no part of one.

  Attributes:
    init: `rows -> state`, leaves [S, ...].
    chunks: by phase, `state -> (state, metrics)`.
    session: `(state, wanted, strategies) -> (state, metrics)`, or None.
    diagnose: `state -> (state, metrics)`, or None.
    events: by name, `state -> (state, metrics)`.
    read: makes a program of any other function of one seed's state; it leaves the
      state alone, and its results can be read on every host.
    placement: where states live; None for one device.
  """

  init: Callable[[Any], Any]
  chunks: dict[str, Callable[[Any], tuple[Any, Metrics]]]
  session: Callable[[Any, PerKind, PerKind], tuple[Any, Metrics]] | None
  diagnose: Callable[[Any], tuple[Any, Metrics]] | None
  events: dict[str, Callable[[Any], tuple[Any, Metrics]]]
  read: Callable[[Callable[[Any], Any]], Callable[[Any], Any]]
  placement: Placement | None = None

  def place(self, state: Any) -> Any:
    """Puts a state of all seeds where its programs expect it."""
    if self.placement is None:
      return state
    return self.placement.put(state, self.placement.state(state))


def compile_algorithm(
  algorithm: Algorithm,
  placement: Placement | None = None,
  precision: str = 'float32',
) -> Compiled:
  """Maps every function over a leading seed axis and jits it.

  Args:
    algorithm: of one seed.
    placement: which devices take which seeds, and which part of their data; None for
      one device.
    precision: of matrix products on accelerators, see `core.precision`.
  """
  jit = jit_with(precision)
  make = _here(jit) if placement is None else _spread(placement, jit)
  session = algorithm.session
  return Compiled(
    init=make.init(algorithm.init),
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
  step: Callable[..., Callable[..., Any]]
  session: Callable[..., Callable[..., Any]]
  read: Callable[..., Callable[..., Any]]


class Jit(Protocol):
  """`jax.jit`, by which all programs of a run are made."""

  def __call__(self, function: Callable[..., Any], **kwargs: Any) -> Callable[..., Any]:
    """Takes what `jax.jit` takes."""


def jit_with(precision: str) -> Jit:
  """`jax.jit` with what all programs of a run share.

  Args:
    precision: of matrix products on accelerators, see `core.precision`.
  """

  def jit(function: Callable[..., Any], **kwargs: Any) -> Callable[..., Any]:
    precise = with_precision(function, precision)
    return jax.jit(precise, compiler_options=_compiler_options(), **kwargs)

  return jit


def _compiler_options() -> dict[str, bool] | None:
  """On GPUs, only kernels that give the same bits every time.

  Else sums would depend on which thread comes first, and products on which kernel was
  faster when a process tried them: `--resume` could not go on to the same bits.
  """
  if jax.default_backend() != 'gpu':
    return None
  return {'xla_gpu_deterministic_ops': True}


def _here(jit: Jit) -> _Makers:
  """On the first device."""

  def make_session(session: Session) -> Callable[..., Any]:
    @functools.partial(jit, donate_argnums=0, static_argnums=1)
    def propose(state: Any, strategies: PerKind, wanted: PerKind) -> tuple[Any, Any]:
      return jax.vmap(lambda s: _propose(session, strategies, s, wanted))(state)

    @functools.partial(jit, donate_argnums=0)
    def learn(state: Any, asked: Any, wanted: PerKind) -> tuple[Any, Metrics]:
      return jax.vmap(lambda s, a: _learn(session, (s, a), wanted))(state, asked)

    def run(state: Any, wanted: PerKind, strategies: PerKind) -> tuple[Any, Metrics]:
      return learn(*propose(state, strategies, wanted), wanted)

    return run

  return _Makers(
    init=lambda function: jit(jax.vmap(function)),
    step=lambda function: jit(jax.vmap(function), donate_argnums=0),
    session=make_session,
    read=lambda function: jit(jax.vmap(function)),
  )


def _spread(placement: Placement, jit: Jit) -> _Makers:
  """On a mesh."""

  def init(function: Callable[..., Any]) -> Callable[..., Any]:
    mapped = placement.map(function)
    program = _Program(
      jit, mapped, lambda rows: placement.state(jax.eval_shape(mapped, rows))
    )

    def start(rows: Any) -> Any:
      # Hosts start from equal rows, of which each keeps its own.
      where = jax.tree.map(lambda _: placement.rows, rows)
      return program(placement.put(rows, where))

    return start

  def step(function: Callable[..., Any]) -> Callable[..., Any]:
    return _with_readable_metrics(
      _Program(
        jit,
        placement.map(function),
        lambda state: (placement.state(state), placement.rows),
        donates=True,
      )
    )

  def make_session(session: Session) -> Callable[..., Any]:
    @functools.cache
    def propose(strategies: PerKind) -> Callable[..., Any]:
      return _Program(
        jit,
        placement.map(functools.partial(_propose, session, strategies)),
        lambda state, *_: (placement.state(state), placement.rows),
        donates=True,
      )

    mapped = placement.map(functools.partial(_learn, session))
    learn = _with_readable_metrics(
      _Program(
        jit,
        lambda state, asked, wanted: mapped((state, asked), wanted),
        lambda state, *_: (placement.state(state), placement.rows),
        donates=True,
      )
    )

    def run(state: Any, wanted: PerKind, strategies: PerKind) -> tuple[Any, Metrics]:
      return learn(*propose(strategies)(state, wanted), wanted)

    return run

  def read(function: Callable[..., Any]) -> Callable[..., Any]:
    program = jit(placement.map(function), out_shardings=placement.rows)
    return lambda *args: hosts.readable(program(*args))

  return _Makers(init=init, step=step, session=make_session, read=read)


def _with_readable_metrics(program: Callable[..., Any]) -> Callable[..., Any]:
  """Hosts exchange what they shall all read between programs, not inside of them.

  Seeds have nothing else to say to each other, so that their programs wait for no
  other host, and CPUs may keep the faster scheduler (see `hosts.connect`).
  """

  def run(*args: Any) -> tuple[Any, Metrics]:
    state, metrics = program(*args)
    return state, hosts.readable(metrics)

  return run


class _Program:
  """A jitted function that is made at its first call, which shows what is in a state.

  It says where results shall lie. Left to itself the compiler might put a new state
  elsewhere than the old one was, and the next call would compile again.
  """

  def __init__(
    self,
    jit: Jit,
    function: Callable[..., Any],
    shardings: Callable[..., Any],
    donates: bool = False,
  ):
    """Binds a function.

    Args:
      jit: how to make a program.
      function: what to jit.
      shardings: of its results, given its arguments.
      donates: whether its first argument is gone after the call.
    """
    self._jit = jit
    self._function = function
    self._shardings = shardings
    self._donated = 0 if donates else ()
    self._program: Callable[..., Any] | None = None

  def __call__(self, *args: Any) -> Any:
    if self._program is None:
      self._program = self._jit(
        self._function,
        donate_argnums=self._donated,
        out_shardings=self._shardings(*args),
      )
    return self._program(*args)


# A session is two programs. How questions are chosen changes between sessions, as a
# rule after the first; what is learned from the answers, which takes longer to compile,
# does not.


def _propose(
  session: Session, strategies: PerKind, state: Any, wanted: PerKind
) -> tuple[Any, Any]:
  """A new state, and what shall be asked with the teacher's key."""
  state, queries, teach_key = session.propose(state, strategies, wanted)
  return state, (queries, teach_key)


def _learn(
  session: Session, asked: tuple[Any, Any], wanted: PerKind
) -> tuple[Any, Metrics]:
  """Teach and absorb in one: no person has to be waited for."""
  state, (queries, teach_key) = asked
  answers = session.teach(queries, teach_key)
  return session.absorb(state, queries, answers, wanted)
