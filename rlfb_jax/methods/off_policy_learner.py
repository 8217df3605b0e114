"""How the off-policy skeleton learns from its replay buffer, whoever pays.

Kept apart from the loop that fills the buffer (`off_policy`): every gradient step, also
those of the events between chunks, is made here.
"""

import dataclasses

import jax
import jax.numpy as jnp

from rlfb_jax.agents.off_policy import OffPolicyAgent, Transitions, td_targets, update
from rlfb_jax.agents.regulariser import Regulariser
from rlfb_jax.core import replay as replay_lib
from rlfb_jax.core.types import Key, Metrics
from rlfb_jax.methods.off_policy_parts import (
  OffPolicyIntervention,
  OffPolicyState,
  OuterStep,
  transitions_of,
)
from rlfb_jax.methods.parts import Feedback
from rlfb_jax.reward.novelty import novelty_reward


@dataclasses.dataclass(frozen=True)
class OffPolicyLearner:
  """Gradient steps on a run's own replay buffer, as pure functions of its state.

  Attributes:
    agent: who learns.
    batch_size: B, transitions in a gradient step.
    fresh_labels: whether a batch is paid by the reward model of the moment; otherwise
      by what was stored beside it, and `relabel` brings that up to date.
    catch_up_updates: gradient steps in `begin_learning`.
    explore_steps: transitions among which novelty looks for neighbours.
    neighbours: which nearest one measures it.
    feedback: without it the rewards stored are true ones.
    outer: of `outer_step`.
    intervention: what else moves the policy.
  """

  agent: OffPolicyAgent
  batch_size: int
  fresh_labels: bool
  catch_up_updates: int
  explore_steps: int
  neighbours: int
  feedback: Feedback | None
  outer: OuterStep | None
  intervention: OffPolicyIntervention | None

  def recent(self, state: OffPolicyState, key: Key) -> Transitions:
    """Some of the newest transitions, as many as the intervention asks for."""
    assert self.intervention is not None
    index = replay_lib.draw(
      key, state.replay, (self.intervention.recent_rows,), self.intervention.newest
    )
    return transitions_of(replay_lib.gather(state.replay, index)[0])

  def learn_once(
    self, state: OffPolicyState, exploring: bool
  ) -> tuple[OffPolicyState, Metrics]:
    """One update of the agent; `exploring`, it is paid for novelty."""
    key, batch_key, recent_key, update_key = jax.random.split(state.key, 4)
    batch, rewards = self._sample(state, batch_key)
    regulariser = None
    if exploring:
      assert state.novelty is not None
      seen = state.replay.rows[: self.explore_steps, : batch.obs.shape[-1]]
      novelty, rewards = novelty_reward(
        state.novelty, batch.obs, seen, state.replay.filled, self.neighbours
      )
      state = state.replace(novelty=novelty)
    else:
      regulariser = self._regulariser(state, recent_key)
    learned, metrics = update(
      self.agent, state.agent, batch, rewards, update_key, state.updates, regulariser
    )
    metrics['agent_reward'] = jnp.mean(rewards)
    return state.replace(agent=learned, key=key, updates=state.updates + 1), metrics

  def begin_learning(self, state: OffPolicyState) -> tuple[OffPolicyState, Metrics]:
    """What the critics learned of novelty says nothing about the reward to come."""
    key, reset_key = jax.random.split(state.key)
    state = state.replace(
      key=key, agent=self.agent.reset_critic(reset_key, state.agent)
    )
    state, metrics = jax.lax.scan(
      lambda s, _: self.learn_once(s, exploring=False),
      state,
      None,
      length=self.catch_up_updates,
    )
    return state, {'catch_up_critic_loss': metrics['critic_loss'][-1]}

  def outer_step(self, state: OffPolicyState) -> tuple[OffPolicyState, Metrics]:
    """The reward is trained through the critics, and pays for one update at once."""
    assert self.feedback is not None
    assert self.outer is not None
    keys = jax.random.split(state.key, 7)
    key, batch_key, outer_key, next_key, shape_key, learn_key, recent_key = keys
    batch, _ = self._sample(state, batch_key)
    # Of the critics' targets all but the learned reward: the step that is taken in
    # thought and the one that is taken must not differ in anything else.
    continuation = td_targets(
      self._shaping(state, batch, shape_key),
      self.agent.next_values(state.agent, batch, next_key),
      batch,
      self.agent.discount,
      stop_at_time_limit=self.outer.stop_at_time_limit,
    )
    learned, metrics = self.outer.step(
      state.feedback, state.agent, batch, continuation, outer_key
    )
    before, rewards = (
      self.feedback.combine(
        self.feedback.members(s, batch.obs, batch.action), state.env_steps
      )
      for s in (state.feedback, learned)
    )
    # How far the step has moved what the agent is paid, beside how much that varies.
    metrics['meta_reward_change'] = jnp.sqrt(jnp.mean(jnp.square(rewards - before)))
    metrics['meta_reward_std'] = jnp.std(before)
    trained, _ = self.agent.learn(
      state.agent,
      batch,
      rewards + continuation,
      learn_key,
      state.updates,
      self._regulariser(state, recent_key),
    )
    state = state.replace(
      agent=trained, feedback=learned, key=key, updates=state.updates + 1
    )
    return self.relabel(state), metrics

  def member_rewards(
    self, state: OffPolicyState, obs: jax.Array, action: jax.Array
  ) -> jax.Array:
    """What is stored for transitions [R, ...] to be paid by later, [R, P]."""
    assert self.feedback is not None
    if self.fresh_labels:  # Nobody will read it.
      return jnp.zeros((obs.shape[0], self.feedback.num_members))
    return self.feedback.members(state.feedback, obs, action).T

  def relabel(self, state: OffPolicyState) -> OffPolicyState:
    """Brings what is stored up to date with the reward model."""
    if self.fresh_labels:
      return state
    replay = replay_lib.relabel(
      state.replay, lambda fields: self.member_rewards(state, fields[0], fields[1])
    )
    return state.replace(replay=replay)

  def _sample(self, state: OffPolicyState, key: Key) -> tuple[Transitions, jax.Array]:
    """A batch and its rewards [B]."""
    batch_key, recent_key = jax.random.split(key)
    index = replay_lib.draw(batch_key, state.replay, (self.batch_size,))
    fields, held = replay_lib.gather(state.replay, index)
    batch = transitions_of(fields)
    if self.feedback is None:
      return batch, held[:, 0]
    members = held.T
    if self.fresh_labels:
      members = self.feedback.members(state.feedback, batch.obs, batch.action)
    rewards = self.feedback.combine(members, state.env_steps)
    return batch, rewards + self._shaping(state, batch, recent_key)

  def _shaping(
    self, state: OffPolicyState, batch: Transitions, key: Key
  ) -> jax.Array | float:
    if self.intervention is None or self.intervention.shape_rewards is None:
      return 0.0
    return self.intervention.shape_rewards(
      state.feedback, batch, self.recent(state, key)
    )

  def _regulariser(self, state: OffPolicyState, key: Key) -> Regulariser | None:
    """What the intervention adds to the actor's loss, if anything."""
    if self.intervention is None or self.intervention.regulariser is None:
      return None
    return self.intervention.regulariser(state.feedback, self.recent(state, key))
