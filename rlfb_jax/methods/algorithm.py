"""What every method is to the loop that runs it: a record of pure functions."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from rlfb_jax.core.networks import MLP
from rlfb_jax.core.types import Metrics

State = Any  # A method's TrainState: one pytree, one seed.


class PolicyNetwork(NamedTuple):
  """A deterministic policy as plain arrays, for the export.

  It acts by `tanh(MLP(clip((observation - mean) / scale, -clip, clip)))`.

  Attributes:
    layers: kernel [S, in, out] and bias [S, out] of each layer.
    mean: [S, ds].
    scale: [S, ds].
    clip: bound of whitened observations.
    activation: of the hidden layers.
  """

  layers: MLP
  mean: jax.Array
  scale: jax.Array
  clip: float
  activation: str


class Critics(NamedTuple):
  """What evaluation needs to compare values with returns.

  Attributes:
    params: `state -> pytree`.
    q_values: `(params, obs [..., ds], action [..., da]) -> [...]`, the lowest over
      the critics.
    discount: gamma.
  """

  params: Callable[[State], Any]
  q_values: Callable[[Any, jax.Array, jax.Array], jax.Array]
  discount: float


class PerKind(NamedTuple):
  """One thing for each kind of question."""

  ratings: Any
  pairs: Any


class Request(NamedTuple):
  """Labels that are due.

  Attributes:
    wanted: how many, integers.
    strategies: how the clips are chosen, names; '' for a kind that is not asked.
  """

  wanted: PerKind
  strategies: PerKind


class Session(NamedTuple):
  """The three steps of a feedback session, each pure and compiled.

  Attributes:
    propose: `(state, strategies, wanted) -> (state, queries, teach_key)`; `strategies`,
      static, and `wanted` are the request's, and `teach_key` is a key, or a key with
      what else the teacher needs.
    teach: `(queries, teach_key) -> answers`; the scripted teacher, the only one whose
      answer depends on the environment's reward, which `propose` hands over.
    absorb: `(state, queries, answers, wanted) -> (state, metrics)`; `wanted` is the
      request's: how many of the answers the budget still pays for.
  """

  propose: Callable[..., tuple[State, Any, Any]]
  teach: Callable[[Any, Any], Any]
  absorb: Callable[..., tuple[State, Metrics]]


class Algorithm(NamedTuple):
  """A method bound to an environment and a configuration.

  Every function works on one seed; the training loop maps them over a leading seed
  axis. Which chunk runs next is decided on the host from `env_steps`, the same for
  all seeds: a choice per seed inside the graph would run every branch.

  Attributes:
    init: `row -> state`; a row is a key, and in a family (`methods/family.py`) a key
      and the run's own numbers.
    chunks: compiled pieces of interaction and learning by phase name,
      `state -> (state, metrics)`, each `steps_of(name)` environment steps long.
    phase: `env_steps -> name` of the chunk to run next.
    request: `env_steps -> Request` for the session that is due then, or None.
    steps_per_chunk: environment steps of a chunk, summed over environments. Sessions
      and the end of a run lie at multiples of it.
    session: the feedback session, or None where nobody is asked.
    diagnose: `state -> (state, metrics)` after each chunk, or None: what is watched
      beside learning, and the switch that it may throw.
    policy: `state -> pytree` that acting needs, for evaluation and export.
    act: `(policy, observation [..., ds]) -> action [..., da]`, deterministic.
    network: `policy of all seeds -> PolicyNetwork`.
    critics: what values actions, or None where only states are valued.
    short_chunks: environment steps of chunks that are shorter, by name; they divide
      `steps_per_chunk`.
    events: compiled pieces that come between a session and the chunk after it, by
      name, `state -> (state, metrics)`.
    events_due: `env_steps -> names` of those that come now, in order.
  """

  init: Callable[[Any], State]
  chunks: Mapping[str, Callable[[State], tuple[State, Metrics]]]
  phase: Callable[[int], str]
  request: Callable[[int], Request | None]
  steps_per_chunk: int
  session: Session | None
  diagnose: Callable[[State], tuple[State, Metrics]] | None
  policy: Callable[[State], Any]
  act: Callable[[Any, jax.Array], jax.Array]
  network: Callable[[Any], PolicyNetwork]
  critics: Critics | None = None
  short_chunks: Mapping[str, int] = MappingProxyType({})
  events: Mapping[str, Callable[[State], tuple[State, Metrics]]] = MappingProxyType({})
  events_due: Callable[[int], tuple[str, ...]] = lambda env_steps: ()

  def steps_of(self, phase: str) -> int:
    """Environment steps of a phase's chunk."""
    return self.short_chunks.get(phase, self.steps_per_chunk)
