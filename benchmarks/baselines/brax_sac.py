"""brax's SAC update, its own losses, networks and optimiser steps, in our process.

brax's trainer does not let its update be timed alone, so the losses, networks and
`gradient_update_fn` of brax are called here in the order of `sgd_step` in
`brax/training/agents/sac/train.py`. The work differs from ours in two places: the
temperature's loss runs the actor once more, and the target networks move at every step.
Batches are drawn as ours are.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from brax.training import gradients, types
from brax.training.agents.sac import losses, networks

from rlfb_jax.agents.off_policy import Transitions

LEARNING_RATE, DISCOUNT, TAU = 3e-4, 0.99, 0.005


def make_updates(
  observation_size: int,
  action_size: int,
  hidden: Sequence[int],
  draw: Callable[[jax.Array], tuple[Transitions, jax.Array]],
) -> Callable[[int], object]:
  """A compiled loop of updates.

  Args:
    observation_size: ds.
    action_size: da.
    hidden: widths of the hidden layers of actor and critics.
    draw: `key -> (batch, rewards [B])`.

  Returns:
    `n -> result`: makes n updates and waits; the first call compiles.
  """
  made = networks.make_sac_networks(
    observation_size, action_size, hidden_layer_sizes=tuple(hidden)
  )
  alpha_loss, critic_loss, actor_loss = losses.make_losses(
    made, reward_scaling=1.0, discounting=DISCOUNT, action_size=action_size
  )
  adam = optax.adam(LEARNING_RATE)
  steps = [
    gradients.gradient_update_fn(loss, adam, pmap_axis_name=None)
    for loss in (alpha_loss, critic_loss, actor_loss)
  ]
  policy_key, q_key, run_key = jax.random.split(jax.random.key(0), 3)
  policy, critic = made.policy_network.init(policy_key), made.q_network.init(q_key)
  log_alpha = jnp.zeros(())
  params = log_alpha, critic, policy
  held = [
    jax.tree.map(
      jnp.copy, (params, tuple(adam.init(p) for p in params), critic, run_key)
    )
  ]

  def one(carry: tuple) -> tuple:
    (log_alpha, critic, policy), moments, target, key = carry
    key, draw_key, *keys = jax.random.split(key, 5)
    batch, rewards = draw(draw_key)
    transitions = types.Transition(
      observation=batch.obs,
      action=batch.action,
      reward=rewards,
      discount=1.0 - batch.terminated,
      next_observation=batch.next_obs,
      extras={'state_extras': {'truncation': batch.truncated.astype(jnp.float32)}},
    )
    # Three times (loss, parameters, moments), in the order of brax's `sgd_step`.
    _, new_alpha, alpha_moments = steps[0](
      log_alpha, policy, None, transitions, keys[0], optimizer_state=moments[0]
    )
    alpha = jnp.exp(log_alpha)
    _, new_critic, critic_moments = steps[1](
      critic,
      policy,
      None,
      target,
      alpha,
      transitions,
      keys[1],
      optimizer_state=moments[1],
    )
    _, new_policy, policy_moments = steps[2](
      policy, None, critic, alpha, transitions, keys[2], optimizer_state=moments[2]
    )
    target = jax.tree.map(lambda t, q: t * (1 - TAU) + q * TAU, target, new_critic)
    params = new_alpha, new_critic, new_policy
    return params, (alpha_moments, critic_moments, policy_moments), target, key

  program = jax.jit(
    lambda carry, n: jax.lax.fori_loop(0, n, lambda _, c: one(c), carry),
    donate_argnums=0,
  )

  def run(n: int) -> None:
    held[0] = jax.block_until_ready(program(held[0], jnp.int32(n)))

  return run
