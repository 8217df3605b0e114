"""How the repulsion of RbRL-KL enters agents that learn from a replay buffer.

`D_pi`, the states that the policy visits, becomes the states of its last episodes
with the actions that it would take there now.
"""

from typing import Any

import jax

from rlfb_jax.agents.off_policy import OffPolicyAgent, Transitions
from rlfb_jax.agents.regulariser import Regulariser
from rlfb_jax.core.types import Key, Metrics, Params
from rlfb_jax.feedback import archive as archive_lib
from rlfb_jax.methods.feedback import FeedbackState
from rlfb_jax.methods.off_policy_parts import OffPolicyIntervention
from rlfb_jax.methods.parts import Feedback
from rlfb_jax.methods.watch import gated_classes, live_classes, look, worth
from rlfb_jax.repulsion import (
  PolicyBatch,
  Repulsion,
  RepulsionOptions,
  fade,
  join_gradients,
  saturated_share,
)

# Episodes whose states stand for those that the policy visits.
RECENT_EPISODES = 20


def check_mode(options: RepulsionOptions) -> None:
  """Refuses what needs the density of actions that were taken long ago.

  Raises:
    ValueError: naming the modes that work.
  """
  if options.kl_mode == 'ratio':
    raise ValueError(
      '--kl_mode=ratio weighs actions by the policy that took them, which a replay'
      ' buffer does not remember; take pathwise, heads_unlikelihood, heads_gaussian or'
      ' influence, or --agent=ppo.'
    )


def make_off_policy_intervention(
  repulsion: Repulsion,
  agent: OffPolicyAgent,
  options: RepulsionOptions,
  feedback: Feedback,
  action_size: int,
  episode_length: int,
  segment_steps: int,
) -> OffPolicyIntervention:
  """Turns the repulsion's pieces into what the off-policy skeleton takes.

  Args:
    repulsion: what pushes; made for `agent.policy`.
    agent: who is pushed.
    options: the repulsion's.
    feedback: whose r_hat the gate on classes reads.
    action_size: da.
    episode_length: control steps.
    segment_steps: H, the length at which classes are predicted.
  """

  def regulariser(state: FeedbackState, recent: Transitions) -> Regulariser:
    room = fade(saturated_share(recent.action), options.saturation_limit)

    def loss(actor: Params, key: Key) -> tuple[jax.Array, Metrics]:
      assert repulsion.term is not None
      return repulsion.term(
        actor, live_classes(state), PolicyBatch(obs=recent.obs), key
      )

    def combine(
      rl: Params,
      term: Params,
      approx_kl: jax.Array,
      signal_norm: jax.Array | None = None,
    ) -> tuple[Params, Metrics]:
      del approx_kl  # No trust region to leave.
      joined, metrics = join_gradients(rl, term, options, room, signal_norm)
      return joined, metrics | {'kl/room': room}

    return Regulariser(loss, combine, options.refresh_every)

  def shape_rewards(
    state: FeedbackState, batch: Transitions, recent: Transitions
  ) -> jax.Array:
    assert repulsion.shape_rewards is not None
    behaviour = recent.obs, recent.action
    return repulsion.shape_rewards(
      live_classes(state), batch.obs, batch.action, behaviour
    )

  def gate(state: FeedbackState) -> FeedbackState:
    assert state.classes is not None
    newest = archive_lib.latest(state.archive, state.archive.rollout_steps)
    gated = gated_classes(
      repulsion, state, feedback.r_hat, newest.obs, newest.action, segment_steps
    )
    return state.replace(classes=state.classes.replace(gate=gated.gate))

  def diagnose(
    state: FeedbackState, agent_state: Any, obs: jax.Array, key: Key
  ) -> tuple[FeedbackState, Metrics]:
    params = agent.actor_params(agent_state)
    batch = PolicyBatch(obs=obs)
    assert state.classes is not None
    metrics = repulsion.diagnose(params, state.classes, batch, key)
    entropy, saturation = metrics['policy/entropy'], metrics['policy/saturation']
    state = look(repulsion, state, entropy, saturation, action_size)
    metrics |= worth(repulsion, state, live_classes(state), params, batch, key)
    return gate(state) if repulsion.gate else state, metrics

  return OffPolicyIntervention(
    shape_rewards=shape_rewards if repulsion.shape_rewards else None,
    regulariser=regulariser if repulsion.term else None,
    recent_rows=options.kl_batch,
    newest=RECENT_EPISODES * episode_length,
    gate=gate if repulsion.gate else None,
    diagnose=diagnose,
  )
