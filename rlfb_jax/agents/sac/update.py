"""Soft actor-critic as a record of pure functions."""

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
from rlfb_jax.agents.off_policy import OffPolicyAgent, Transitions
from rlfb_jax.agents.regulariser import Regulariser
from rlfb_jax.agents.sac import losses, networks
from rlfb_jax.agents.sac.config import SACOptions
from rlfb_jax.core.config import is_traced, log
from rlfb_jax.core.networks import MLP
from rlfb_jax.core.types import Key, Metrics

NUM_CRITICS = 2


class SACState(flax.struct.PyTreeNode):
  """Everything SAC carries from one update to the next.

  Attributes:
    actor: parameters of the policy.
    critic: of the twin critics, leaves [2, ...].
    target_critic: their slow copies.
    log_temperature: log alpha, [].
    actor_optimizer: Adam's moments.
    critic_optimizer: Adam's moments.
    temperature_optimizer: Adam's moments.
    term: what a regulariser remembers, or None without one.
    skipped_updates: updates in which some gradient was not finite, [] int32.
  """

  actor: MLP
  critic: MLP
  target_critic: MLP
  log_temperature: jax.Array
  actor_optimizer: optax.OptState
  critic_optimizer: optax.OptState
  temperature_optimizer: optax.OptState
  term: steps.TermMemory | None
  skipped_updates: jax.Array


class _ActorPart(flax.struct.PyTreeNode):
  """What the step of actor and temperature replaces."""

  actor: MLP
  log_temperature: jax.Array
  actor_optimizer: optax.OptState
  temperature_optimizer: optax.OptState
  term: steps.TermMemory | None
  skipped: jax.Array


def make_sac(
  options: SACOptions,
  observation_size: int,
  action_size: int,
  *,
  regularised: bool = False,
) -> OffPolicyAgent:
  """Makes SAC for flat observations and actions in [-1, 1].

  Args:
    options: hyperparameters.
    observation_size: ds.
    action_size: da.
    regularised: whether `learn` will be given a regulariser.

  Returns:
    The agent. `learn` reports `critic_loss`, `q_mean` and `td_error` (mean
    magnitude) before the step, `actor_loss`, `entropy` (of the squashed policy, in
    nats), `temperature` and `non_finite_updates` (since the start), each [].
  """
  adam = steps.Adam(options.adam_beta1, options.adam_beta2, options.adam_epsilon)
  hidden = [options.hidden_size] * options.hidden_layers
  target_entropy = options.target_entropy
  if not is_traced(target_entropy) and target_entropy == 0:
    target_entropy = -float(action_size)

  def new_critic(key: Key) -> MLP:
    return init_critics(key, NUM_CRITICS, observation_size, action_size, hidden, 1.0)

  def init(key: Key) -> SACState:
    actor_key, critic_key = jax.random.split(key)
    actor = networks.init_actor(actor_key, observation_size, action_size, options)
    critic = new_critic(critic_key)
    log_temperature = log(options.initial_temperature)
    return SACState(
      actor=actor,
      critic=critic,
      target_critic=jax.tree.map(jnp.copy, critic),
      log_temperature=log_temperature,
      actor_optimizer=adam.init(actor),
      critic_optimizer=adam.init(critic),
      temperature_optimizer=adam.init(log_temperature),
      term=steps.init_term(actor) if regularised else None,
      skipped_updates=jnp.zeros((), jnp.int32),
    )

  def policy(actor: MLP, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    return networks.policy(actor, obs, options)

  def act(state: SACState, obs: jax.Array, key: Key) -> jax.Array:
    mean, log_std = policy(state.actor, obs)
    noise = jax.random.normal(key, mean.shape)
    return networks.sample_action(mean, log_std, noise)[0]

  def next_values(state: SACState, batch: Transitions, key: Key) -> jax.Array:
    values = losses.soft_values(
      state.actor,
      state.target_critic,
      jnp.exp(state.log_temperature),
      batch.next_obs,
      jax.random.normal(key, batch.action.shape),
      options,
    )
    return jax.lax.stop_gradient(values)

  def learn(
    state: SACState,
    batch: Transitions,
    targets: jax.Array,
    key: Key,
    step: jax.Array,
    regulariser: Regulariser | None = None,
  ) -> tuple[SACState, Metrics]:
    noise_key, term_key = jax.random.split(key)
    critic, critic_optimizer, critic_skipped, metrics = critic_step(
      adam, options.critic_learning_rate, state, batch.obs, batch.action, targets
    )

    def actor_step() -> tuple[_ActorPart, Metrics]:
      def loss(actor: MLP) -> tuple[jax.Array, jax.Array]:
        noise = jax.random.normal(noise_key, batch.action.shape)
        temperature = jnp.exp(state.log_temperature)
        return losses.actor_loss(actor, critic, temperature, batch.obs, noise, options)

      (actor_loss, entropy), grads = jax.value_and_grad(loss, has_aux=True)(state.actor)
      grads, term, term_metrics = steps.regularised(
        regulariser,
        state.actor,
        grads,
        state.term,
        term_key,
        step // options.actor_update_every,
      )
      actor, actor_optimizer, actor_skipped = steps.guarded_step(
        adam, options.actor_learning_rate, state.actor, state.actor_optimizer, grads
      )
      temperature_grad = jax.grad(losses.temperature_loss)(
        state.log_temperature, entropy, target_entropy
      )
      log_temperature, temperature_optimizer, temperature_skipped = steps.guarded_step(
        adam,
        options.temperature_learning_rate,
        state.log_temperature,
        state.temperature_optimizer,
        temperature_grad,
      )
      part = _ActorPart(
        actor=actor,
        log_temperature=log_temperature,
        actor_optimizer=actor_optimizer,
        temperature_optimizer=temperature_optimizer,
        term=term,
        skipped=actor_skipped | temperature_skipped,
      )
      return part, {'actor_loss': actor_loss, 'entropy': entropy} | term_metrics

    unchanged = _ActorPart(
      actor=state.actor,
      log_temperature=state.log_temperature,
      actor_optimizer=state.actor_optimizer,
      temperature_optimizer=state.temperature_optimizer,
      term=state.term,
      skipped=jnp.zeros((), bool),
    )
    part, actor_metrics = steps.occasionally(
      step, options.actor_update_every, actor_step, unchanged
    )
    skipped = (critic_skipped | part.skipped).astype(jnp.int32)
    new_state = SACState(
      actor=part.actor,
      critic=critic,
      target_critic=steps.soft_update(
        state.target_critic, critic, options.tau, step, options.target_update_every
      ),
      log_temperature=part.log_temperature,
      actor_optimizer=part.actor_optimizer,
      critic_optimizer=critic_optimizer,
      temperature_optimizer=part.temperature_optimizer,
      term=part.term,
      skipped_updates=state.skipped_updates + skipped,
    )
    return new_state, {
      **metrics,
      **actor_metrics,
      'temperature': jnp.exp(new_state.log_temperature),
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
    mean_network=networks.mean_network,
    discount=options.discount,
    critic_learning_rate=options.critic_learning_rate,
  )
