"""MRN: the reward is trained through what the critics make of it."""

from typing import Any

import jax

from rlfb_jax.agents.off_policy import OffPolicyAgent, Transitions
from rlfb_jax.core.types import Key, Metrics
from rlfb_jax.methods.feedback import FeedbackState
from rlfb_jax.methods.off_policy_parts import OuterStep
from rlfb_jax.methods.parts import Feedback
from rlfb_jax.reward.meta_options import MetaOptions, is_due
from rlfb_jax.reward.meta_step import MetaStep


def make_outer_step(
  options: MetaOptions,
  meta: MetaStep,
  agent: OffPolicyAgent,
  feedback: Feedback,
  spent_at: int | None,
) -> OuterStep:
  """Hands the reward's outer step what it needs of the run.

  Args:
    options: when it comes.
    meta: the step itself.
    agent: whose critics are stepped in thought.
    feedback: what the agent is paid.
    spent_at: environment steps at which the label budget is spent, or None.
  """

  def step(
    state: FeedbackState,
    agent_state: Any,
    batch: Transitions,
    continuation: jax.Array,
    key: Key,
  ) -> tuple[FeedbackState, Metrics]:
    pairs = state.answers.pairs
    outer, reward_model, metrics = meta.step(
      key,
      state.outer,
      state.reward_model,
      agent.critic_params(agent_state),
      batch.obs,
      batch.action,
      continuation,
      state.answers.ratings,
      None if pairs is None else pairs.asked,
      lambda members: feedback.combine(members, state.env_steps),
    )
    state = feedback.with_reward_model(state.replace(outer=outer), reward_model)
    return state, metrics

  return OuterStep(
    step=step,
    stop_at_time_limit=options.time_limits_terminal,
    due=lambda env_steps: is_due(options, env_steps, feedback.first_session, spent_at),
    replaces_update=options.replaces_update,
  )
