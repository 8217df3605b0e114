"""What an agent that learns from a replay buffer is to the loop: pure functions.

Rewards are not part of a transition: the loop decides what the agent is paid, and
hands over either rewards or finished targets.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax

from rlfb_jax.agents.regulariser import Regulariser
from rlfb_jax.core.networks import MLP
from rlfb_jax.core.types import Key, Metrics, Params

State = Any  # An agent's state: networks, optimisers, temperature.


class Transitions(flax.struct.PyTreeNode):
  """Steps in any order, leaves [B, ...].

  Attributes:
    obs: raw observation acted on, [B, ds].
    action: as executed, [B, da] in [-1, 1].
    next_obs: raw observation that followed, before any auto-reset, [B, ds].
    terminated: the episode ended for good, [B] bool.
    truncated: the episode ended by its time limit, [B] bool.
  """

  obs: jax.Array
  action: jax.Array
  next_obs: jax.Array
  terminated: jax.Array
  truncated: jax.Array


class OffPolicyAgent(NamedTuple):
  """SAC, DDPG and their like.

  Attributes:
    init: `key -> state`.
    act: `(state, obs [N, ds], key) -> action [N, da]` in [-1, 1], exploring.
    next_values: `(state, batch, key) -> [B]`: value of what follows each transition,
      by the target networks, for the present policy; no gradient passes it and no
      mask is applied.
    q_values: `(critic_params, obs [..., ds], action [..., da]) -> [C, ...]`, one
      value a critic; differentiable backwards, also twice, but not forwards
      (`core.networks.product` has a VJP of its own).
    critic_params: `state -> params` of the critics that learn, for `q_values`.
    learn: `(state, batch, targets [B], key, step [] int32, regulariser | None) ->
      (state, metrics)`: one gradient step of critics, actor and temperature, and of
      the target networks where `step` says so. Metrics of what does not happen each
      step, the regulariser's for one, count k-fold at each k-th step and are zero
      in between, so that only their means over many steps are to be read.
    reset_critic: `(key, state) -> state` with new critics, their targets and their
      optimiser, all else kept (after unsupervised pre-training).
    policy: `(actor_params, obs [..., ds]) -> (mean, log_std)`, each [..., da],
      before the squash by tanh.
    actor_params: `state -> params`, for `policy`.
    mean_network: `params -> MLP` whose output, squashed, is the deterministic action;
      leaves may lead with further axes.
    discount: gamma.
    critic_learning_rate: step size of the critics' optimiser.
  """

  init: Callable[[Key], State]
  act: Callable[[State, jax.Array, Key], jax.Array]
  next_values: Callable[[State, Transitions, Key], jax.Array]
  q_values: Callable[[Params, jax.Array, jax.Array], jax.Array]
  critic_params: Callable[[State], Params]
  learn: Callable[..., tuple[State, Metrics]]
  reset_critic: Callable[[Key, State], State]
  policy: Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]
  actor_params: Callable[[State], Params]
  mean_network: Callable[[Params], MLP]
  discount: float
  critic_learning_rate: float


def td_targets(
  rewards: jax.Array | float,
  next_values: jax.Array,
  batch: Transitions,
  discount: float,
  *,
  stop_at_time_limit: bool = False,
) -> jax.Array:
  """One-step targets, [B].

  Args:
    rewards: [B].
    next_values: value of what follows, [B].
    batch: for its ends.
    discount: gamma.
    stop_at_time_limit: treat time limits as ends, as the released MRN does in its
      bi-level step (`train_MRN.py`) and nowhere else.
  """
  ended = batch.terminated | batch.truncated if stop_at_time_limit else batch.terminated
  return rewards + discount * (1.0 - ended) * next_values


def update(
  agent: OffPolicyAgent,
  state: State,
  batch: Transitions,
  rewards: jax.Array,
  key: Key,
  step: jax.Array,
  regulariser: Regulariser | None = None,
) -> tuple[State, Metrics]:
  """One update on `rewards` [B]; time limits bootstrap, ends do not."""
  next_key, learn_key = jax.random.split(key)
  values = agent.next_values(state, batch, next_key)
  targets = td_targets(rewards, values, batch, agent.discount)
  return agent.learn(state, batch, targets, learn_key, step, regulariser)
