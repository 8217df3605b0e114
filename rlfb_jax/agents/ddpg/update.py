"""DDPG as a record of pure functions."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from rlfb_jax.agents import steps
from rlfb_jax.agents.critics import (
  critic_step,
  init_critics,
  q_values,
  with_critic,
)
from rlfb_jax.agents.ddpg import losses, networks
from rlfb_jax.agents.ddpg.config import DDPGOptions
from rlfb_jax.agents.off_policy import OffPolicyAgent, Transitions
from rlfb_jax.agents.regulariser import Regulariser
from rlfb_jax.core import distributions
from rlfb_jax.core.networks import MLP
from rlfb_jax.core.types import Key, Metrics


class DDPGState(flax.struct.PyTreeNode):
  """Everything DDPG carries from one update to the next.

  Attributes:
    actor: parameters of the policy.
    critic: leaves [1, ...].
    target_actor: slow copy of the actor.
    target_critic: slow copy of the critic.
    actor_optimizer: Adam's moments.
    critic_optimizer: Adam's moments.
    term: what a regulariser remembers, or None without one.
    skipped_updates: updates in which some gradient was not finite, [] int32.
  """

  actor: MLP
  critic: MLP
  target_actor: MLP
  target_critic: MLP
  actor_optimizer: optax.OptState
  critic_optimizer: optax.OptState
  term: steps.TermMemory | None
  skipped_updates: jax.Array


def make_ddpg(
  options: DDPGOptions,
  observation_size: int,
  action_size: int,
  *,
  regularised: bool = False,
) -> OffPolicyAgent:
  """Makes DDPG for flat observations and actions in [-1, 1].

  Args:
    options: hyperparameters.
    observation_size: ds.
    action_size: da.
    regularised: whether `learn` will be given a regulariser.

  Returns:
    The agent. `learn` reports `critic_loss`, `q_mean` and `td_error` (mean
    magnitude) before the step, `actor_loss` and `non_finite_updates` (since the
    start), each [].
  """
  adam = steps.Adam(options.adam_beta1, options.adam_beta2, options.adam_epsilon)
  hidden = [options.hidden_size] * options.hidden_layers

  def new_critic(key: Key) -> MLP:
    return init_critics(
      key, 1, observation_size, action_size, hidden, networks.LAST_GAIN
    )

  def init(key: Key) -> DDPGState:
    actor_key, critic_key = jax.random.split(key)
    actor = networks.init_actor(actor_key, observation_size, action_size, options)
    critic = new_critic(critic_key)
    return DDPGState(
      actor=actor,
      critic=critic,
      target_actor=jax.tree.map(jnp.copy, actor),
      target_critic=jax.tree.map(jnp.copy, critic),
      actor_optimizer=adam.init(actor),
      critic_optimizer=adam.init(critic),
      term=steps.init_term(actor) if regularised else None,
      skipped_updates=jnp.zeros((), jnp.int32),
    )

  def policy(actor: MLP, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    return networks.policy(actor, obs, options)

  def act(state: DDPGState, obs: jax.Array, key: Key) -> jax.Array:
    return jnp.tanh(distributions.sample(key, *policy(state.actor, obs)))

  def next_values(state: DDPGState, batch: Transitions, key: Key) -> jax.Array:
    del key  # The target policy is deterministic.
    values = losses.next_values(state.target_actor, state.target_critic, batch.next_obs)
    return jax.lax.stop_gradient(values)

  def learn(
    state: DDPGState,
    batch: Transitions,
    targets: jax.Array,
    key: Key,
    step: jax.Array,
    regulariser: Regulariser | None = None,
  ) -> tuple[DDPGState, Metrics]:
    critic, critic_optimizer, critic_skipped, metrics = critic_step(
      adam, options.critic_learning_rate, state, batch.obs, batch.action, targets
    )
    actor_loss, grads = jax.value_and_grad(losses.actor_loss)(
      state.actor, critic, batch.obs, options.scale_by_value
    )
    grads, term, term_metrics = steps.regularised(
      regulariser, state.actor, grads, state.term, key, step
    )
    actor, actor_optimizer, actor_skipped = steps.guarded_step(
      adam, options.actor_learning_rate, state.actor, state.actor_optimizer, grads
    )
    target_actor, target_critic = steps.soft_update(
      (state.target_actor, state.target_critic),
      (actor, critic),
      options.tau,
      step,
      options.target_update_every,
    )
    skipped = (critic_skipped | actor_skipped).astype(jnp.int32)
    new_state = DDPGState(
      actor=actor,
      critic=critic,
      target_actor=target_actor,
      target_critic=target_critic,
      actor_optimizer=actor_optimizer,
      critic_optimizer=critic_optimizer,
      term=term,
      skipped_updates=state.skipped_updates + skipped,
    )
    return new_state, {
      **metrics,
      **term_metrics,
      'actor_loss': actor_loss,
      'non_finite_updates': new_state.skipped_updates.astype(jnp.float32),
    }

  return OffPolicyAgent(
    init=init,
    act=act,
    next_values=next_values,
    q_values=q_values,
    critic_params=lambda state: state.critic,
    learn=learn,
    reset_critic=lambda key, state: with_critic(state, new_critic(key), adam),
    policy=policy,
    actor_params=lambda state: state.actor,
    mean_network=lambda actor: actor,
    discount=options.discount,
    critic_learning_rate=options.critic_learning_rate,
  )
