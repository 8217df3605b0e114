"""An algorithm as compiled programs: one for each piece, all seeds in each."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from rlfb_jax.core.types import Metrics
from rlfb_jax.methods.algorithm import Algorithm, PerKind, Session


class Compiled(NamedTuple):
  """An algorithm's functions, mapped over seeds and compiled when first called.

  States are donated: after a call the old one is gone.
  """

  init: Callable[[jax.Array], Any]
  chunks: dict[str, Callable[[Any], tuple[Any, Metrics]]]
  session: Callable[[Any, PerKind, PerKind], tuple[Any, Metrics]] | None
  diagnose: Callable[[Any], tuple[Any, Metrics]] | None
  events: dict[str, Callable[[Any], tuple[Any, Metrics]]]


def compile_algorithm(algorithm: Algorithm) -> Compiled:
  """Maps every function over a leading seed axis and jits it."""

  def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(jax.vmap(function), donate_argnums=0)

  session = None
  if algorithm.session is not None:
    fused = functools.partial(_scripted_session, algorithm.session)

    @functools.partial(jax.jit, donate_argnums=0, static_argnums=2)
    def session(
      state: Any, wanted: PerKind, strategies: PerKind
    ) -> tuple[Any, Metrics]:
      return jax.vmap(lambda s: fused(s, wanted, strategies))(state)

  return Compiled(
    init=jax.jit(jax.vmap(algorithm.init)),
    chunks={name: compiled(chunk) for name, chunk in algorithm.chunks.items()},
    session=session,
    diagnose=compiled(algorithm.diagnose) if algorithm.diagnose else None,
    events={name: compiled(event) for name, event in algorithm.events.items()},
  )


def _scripted_session(
  session: Session, state: Any, wanted: PerKind, strategies: PerKind
) -> tuple[Any, Metrics]:
  """Propose, teach and absorb in one program: no person has to be waited for."""
  state, queries, teach_key = session.propose(state, strategies)
  answers = session.teach(queries, teach_key)
  return session.absorb(state, queries, answers, wanted)
