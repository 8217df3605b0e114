"""The parts that methods are composed of, each a record of pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from rlfb_jax.core.types import Key, Metrics
from rlfb_jax.methods.algorithm import PerKind, Request
from rlfb_jax.methods.collect import Experience


class Exploration(NamedTuple):
  """Unsupervised pre-training.

  Attributes:
    init: `() -> state`.
    reward: `(state, obs [T, N, ds]) -> (state, rewards [T, N])`.
    env_steps: how long it lasts, summed over environments.
    num_epochs: PPO epochs per update meanwhile.
  """

  init: Callable[[], Any]
  reward: Callable[[Any, jax.Array], tuple[Any, jax.Array]]
  env_steps: int
  num_epochs: int


class Feedback(NamedTuple):
  """A source of judgement and the reward learned from it.

  Attributes:
    init: `key -> state`.
    observe: `(state, experience) -> state`; remembers what may be shown.
    members: `(state, obs [..., ds], action [..., da]) -> [K, ...]`, what each member
      of the reward ensemble says.
    combine: `(members [K, ...], env_steps []) -> [...]`, what the agent is paid for it.
    num_members: K.
    reward: `(state, obs, action) -> [...]`, both in one.
    r_hat: `(state, obs, action) -> [...]`, the learned reward without what a method
      may add to it: what classes of behaviour are told by.
    propose: `(state, key, strategies, wanted) -> queries`; the last two are the
      request's.
    teach: `(queries, key) -> answers`, the scripted teacher.
    absorb: `(state, key, queries, answers, wanted) -> (state, metrics)`; `wanted`
      is the request's.
    with_reward_model: `(state, reward model) -> state`, with all that is told by it.
    context: `state -> state` without what interventions have no use for (archive,
      labels), so that it can be handed from seed to seed cheaply.
    request: `env_steps -> Request` for labels that are due now, or None.
    first_session: environment steps at the first session.
    quality: `state -> metrics` of the learned reward on behaviour that nobody judged,
      see `reward_quality`.
  """

  init: Callable[[Key], Any]
  observe: Callable[[Any, Experience], Any]
  members: Callable[[Any, jax.Array, jax.Array], jax.Array]
  combine: Callable[[jax.Array, jax.Array], jax.Array]
  num_members: int
  reward: Callable[[Any, jax.Array, jax.Array], jax.Array]
  r_hat: Callable[[Any, jax.Array, jax.Array], jax.Array]
  propose: Callable[[Any, Key, PerKind, PerKind], Any]
  teach: Callable[[Any, Key], Any]
  absorb: Callable[..., tuple[Any, Metrics]]
  with_reward_model: Callable[[Any, Any], Any]
  context: Callable[[Any], Any]
  request: Callable[[int], Request | None]
  first_session: int
  quality: Callable[[Any], Metrics]


def make_propose(
  feedback: Feedback,
) -> Callable[[Any, PerKind, PerKind], tuple[Any, Any, Key]]:
  """`Session.propose` on a run's state, which has a `key` and a `feedback`."""

  def propose(state: Any, strategies: PerKind, wanted: PerKind) -> tuple[Any, Any, Key]:
    key, propose_key, teach_key = jax.random.split(state.key, 3)
    queries = feedback.propose(state.feedback, propose_key, strategies, wanted)
    return state.replace(key=key), queries, teach_key

  return propose


class Intervention(NamedTuple):
  """What a method does to the policy beside paying it; each part may be None.

  All read the feedback's state. `experience` is the rollout just collected.

  Attributes:
    shape_rewards: `(feedback, experience) -> [T, N]`, added to the rewards.
    shape_advantages: `(feedback, experience) -> [T, N]`, advantages of one more
      surrogate, which moves the mean of the policy alone.
    regulariser: `(feedback, agent, experience) -> Regulariser`.
    look: `(feedback, experience) -> feedback`, before each update: whether the policy
      still bears it.
    diagnose: `(feedback, agent) -> metrics`, after each chunk.
  """

  shape_rewards: Callable[..., jax.Array] | None
  shape_advantages: Callable[..., jax.Array] | None
  regulariser: Callable[..., Any] | None
  look: Callable[..., Any]
  diagnose: Callable[..., Metrics]
