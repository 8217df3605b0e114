"""One PPO update: advantages, then epochs of clipped minibatch steps."""

from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import optax

from rlfb_jax.agents.gradient_signal import (
  init_signal,
  next_pass,
  signal_norm,
  update_signal,
)
from rlfb_jax.agents.ppo import losses, networks
from rlfb_jax.agents.ppo.config import PPOOptions
from rlfb_jax.agents.regulariser import Regulariser
from rlfb_jax.agents.steps import Adam, guarded_step
from rlfb_jax.core import distributions
from rlfb_jax.core.config import is_traced
from rlfb_jax.core.normalization import (
  RunningStatistics,
  init_statistics,
  normalize,
  update_statistics,
)
from rlfb_jax.core.types import Key, Metrics

Tree = TypeVar('Tree')

# One change of the step size's factor, and how far it may go.
_PACE_STEP = 1.5
_PACE_RANGE = (0.02, 5.0)


class PPOState(flax.struct.PyTreeNode):
  """Everything PPO carries from one update to the next.

  Attributes:
    params: actor and critic.
    optimizer: Adam's moments.
    statistics: of raw observations. They stay fixed while a rollout is collected
      and learned from, so that old and new probabilities see the same inputs.
    skipped_updates: gradient steps left out because a gradient was not finite,
      [] int32.
    pace: factor of the step size, [] float32; see `adapt_pace`.
  """

  params: networks.PPOParams
  optimizer: optax.OptState
  statistics: RunningStatistics
  skipped_updates: jax.Array
  pace: jax.Array


class Rollout(flax.struct.PyTreeNode):
  """What the agent did: leaves [T, N, ...].

  Attributes:
    obs: raw observations acted on, [T, N, ds].
    pre_tanh: actions before the squash, [T, N, da].
    log_prob: their log-density, [T, N].
    final_obs: raw observations that followed, before auto-reset, [T, N, ds].
    terminated: [T, N] bool.
    truncated: [T, N] bool.
  """

  obs: jax.Array
  pre_tanh: jax.Array
  log_prob: jax.Array
  final_obs: jax.Array
  terminated: jax.Array
  truncated: jax.Array


class Batch(flax.struct.PyTreeNode):
  """Transitions ready for gradient steps: leaves [B, ...]."""

  inputs: jax.Array
  pre_tanh: jax.Array
  old_log_prob: jax.Array
  advantages: jax.Array
  targets: jax.Array
  shaping: jax.Array | None


def init_state(
  key: Key, observation_size: int, action_size: int, options: PPOOptions
) -> PPOState:
  """A fresh agent."""
  params = networks.init_params(key, observation_size, action_size, options)
  return PPOState(
    params=params,
    optimizer=Adam(epsilon=options.adam_epsilon).init(params),
    statistics=init_statistics(observation_size),
    skipped_updates=jnp.zeros((), jnp.int32),
    pace=jnp.ones((), jnp.float32),
  )


def act(
  state: PPOState, observation: jax.Array, key: Key, options: PPOOptions
) -> tuple[jax.Array, jax.Array]:
  """Samples pre-squash actions [N, da] and their log-densities [N]."""
  mean, log_std = networks.policy(
    state.params.actor, state.statistics, observation, options
  )
  pre_tanh = distributions.sample(key, mean, log_std)
  return pre_tanh, distributions.log_prob(pre_tanh, mean, log_std)


def update(
  state: PPOState,
  rollout: Rollout,
  rewards: jax.Array,
  key: Key,
  progress: jax.Array,
  options: PPOOptions,
  *,
  num_epochs: int | None = None,
  regulariser: Regulariser | None = None,
  shaping: jax.Array | None = None,
) -> tuple[PPOState, Metrics]:
  """Learns from one rollout.

  Args:
    state: the agent that collected the rollout.
    rollout: leaves [T, N, ...].
    rewards: what to maximise, [T, N].
    key: randomness, consumed.
    progress: share of training done, [] in [0, 1], for the schedules.
    options: hyperparameters.
    num_epochs: passes over the rollout, where not the options' own.
    regulariser: one more term of the actor loss.
    shaping: advantages of a surrogate of its own, [T, N], which moves the mean of the
      policy only, never its spread.

  Returns:
    The agent after the update and its metrics, each [].
  """
  batch, value_metrics = _prepare(state, rollout, rewards, shaping, options)
  remaining = 1.0 - progress
  clip_range = options.clip_range * (remaining if options.clip_decay else 1.0)
  learning_rate = state.pace * (
    options.learning_rate * (remaining if options.learning_rate_decay else 1.0)
  )
  total = options.minibatches_per_epoch
  group = _group_size(total, regulariser)
  adam = Adam(epsilon=options.adam_epsilon)

  def gradient_step(carry: Any, minibatch: Batch) -> tuple[Any, Metrics]:
    params, optimizer, signal, term_grads = carry
    grads, metrics = jax.grad(minibatch_loss, has_aux=True)(
      params, minibatch, clip_range, options
    )
    if regulariser is not None:
      signal = update_signal(signal, grads.actor, total)
      actor_grads, combined = regulariser.combine(
        grads.actor, term_grads, metrics['approx_kl'], signal_norm(signal, total)
      )
      grads = grads.replace(actor=actor_grads)
      metrics |= combined
    grads, norm, finite = clip(grads, options)
    params, optimizer, skipped = guarded_step(
      adam, learning_rate, params, optimizer, grads, finite
    )
    params = networks.hold_spread(params, options)
    metrics |= {'grad_norm': norm, 'skipped': skipped.astype(jnp.float32)}
    return (params, optimizer, signal, term_grads), metrics

  def group_step(carry: Any, inputs: tuple[Key, Batch]) -> tuple[Any, Metrics]:
    group_key, minibatches = inputs
    params, optimizer, signal = carry
    term_grads, term_metrics = None, {}
    if regulariser is not None:
      term_grads, term_metrics = jax.grad(regulariser.loss, has_aux=True)(
        params.actor, group_key
      )
    (params, optimizer, signal, _), metrics = jax.lax.scan(
      gradient_step, (params, optimizer, signal, term_grads), minibatches
    )
    return (params, optimizer, signal), losses.mean_metrics(metrics) | term_metrics

  def epoch(carry: Any, epoch_key: Key) -> tuple[Any, Metrics]:
    shuffle_key, term_key = jax.random.split(epoch_key)
    order = jax.random.permutation(shuffle_key, options.steps_per_iteration)
    shape = (total // group, group, options.minibatch_size)
    shuffled = jax.tree.map(lambda x: x[order].reshape(*shape, *x.shape[1:]), batch)
    keys = jax.random.split(term_key, total // group)
    params, optimizer, signal = carry
    signal = None if signal is None else next_pass(signal)
    carry, metrics = jax.lax.scan(
      group_step, (params, optimizer, signal), (keys, shuffled)
    )
    return carry, losses.mean_metrics(metrics)

  # The RL gradient alone, averaged over about one epoch: the regulariser is held to
  # a share of it. Each rollout has its own objective and starts its own average.
  signal = None if regulariser is None else init_signal(state.params.actor)
  (params, optimizer, _), metrics = jax.lax.scan(
    epoch,
    (state.params, state.optimizer, signal),
    jax.random.split(key, num_epochs or options.num_epochs),
  )
  steps = (num_epochs or options.num_epochs) * total
  last = {name: value[-1] for name, value in metrics.items()}
  skipped = jnp.round(jnp.mean(metrics['skipped']) * steps).astype(jnp.int32)
  new_state = state.replace(
    params=params,
    optimizer=optimizer,
    statistics=update_statistics(state.statistics, rollout.obs),
    skipped_updates=state.skipped_updates + skipped,
    pace=adapt_pace(state.pace, last['approx_kl'], options.target_kl),
  )
  del last['skipped']
  return new_state, last | value_metrics | {
    'pace': new_state.pace,
    'non_finite_updates': new_state.skipped_updates.astype(jnp.float32),
  }


def _prepare(
  state: PPOState,
  rollout: Rollout,
  rewards: jax.Array,
  shaping: jax.Array | None,
  options: PPOOptions,
) -> tuple[Batch, Metrics]:
  """Advantages and targets of a rollout, flattened to [T * N, ...]."""
  clip = options.observation_clip
  inputs = normalize(state.statistics, rollout.obs, clip)
  values = networks.value(state.params.critic, inputs)
  next_values = networks.value(
    state.params.critic, normalize(state.statistics, rollout.final_obs, clip)
  )
  advantages, targets = losses.generalized_advantages(
    rewards,
    values,
    next_values,
    rollout.terminated,
    rollout.truncated,
    options.discount,
    options.gae_lambda,
    stop_at_time_limit=options.time_limits_terminal,
  )
  batch = Batch(
    inputs=inputs,
    pre_tanh=rollout.pre_tanh,
    old_log_prob=rollout.log_prob,
    advantages=advantages,
    targets=targets,
    shaping=shaping,
  )
  flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
  return flat, {'explained_variance': losses.explained_variance(values, targets)}


def minibatch_loss(
  params: networks.PPOParams,
  batch: Batch,
  clip_range: jax.Array | float,
  options: PPOOptions,
) -> tuple[jax.Array, Metrics]:
  """Policy, value and entropy losses of one minibatch, and what to watch."""
  mean, log_std = networks.policy_from_inputs(params.actor, batch.inputs, options)
  surrogate = losses.clipped_surrogate(
    distributions.log_prob(batch.pre_tanh, mean, log_std),
    batch.old_log_prob,
    losses.standardize(batch.advantages),
    clip_range,
  )
  values = networks.value(params.critic, batch.inputs)
  value_loss = jnp.mean(jnp.square(values - batch.targets))
  loss = surrogate.loss + options.value_coefficient * value_loss
  if is_traced(options.entropy_coefficient) or options.entropy_coefficient > 0:
    loss -= options.entropy_coefficient * jnp.mean(
      distributions.normal_entropy(log_std)
    )
  if batch.shaping is not None:
    # Ascent on a repulsion would also shrink the spread, the cheapest way to look
    # different; only the mean may answer to it.
    fixed_spread = distributions.log_prob(
      batch.pre_tanh, mean, jax.lax.stop_gradient(log_std)
    )
    loss += losses.clipped_surrogate(
      fixed_spread, batch.old_log_prob, batch.shaping, clip_range
    ).loss
  return loss, {
    'policy_loss': surrogate.loss,
    'value_loss': value_loss,
    'entropy': jnp.mean(distributions.normal_entropy(log_std)),
    'approx_kl': surrogate.approx_kl,
    'clip_fraction': surrogate.clip_fraction,
  }


def adapt_pace(
  pace: jax.Array, approx_kl: jax.Array, target_kl: float | jax.Array
) -> jax.Array:
  """Slows down where an update moved the policy too far, and speeds up again.

  The rule of rsl_rl (`algorithms/ppo.py`, its `adaptive` schedule), once a rollout.

  Args:
    pace: factor of the step size so far, [].
    approx_kl: of the last epoch against the policy that collected, [].
    target_kl: what it should be within a factor of two; 0 leaves the pace alone.
  """
  faster = jnp.where(approx_kl < 0.5 * target_kl, pace * _PACE_STEP, pace)
  # Not finite counts as too far.
  new = jnp.where(approx_kl <= 2.0 * target_kl, faster, pace / _PACE_STEP)
  return jnp.where(target_kl > 0.0, jnp.clip(new, *_PACE_RANGE), pace)


def clip(
  grads: networks.PPOParams, options: PPOOptions
) -> tuple[networks.PPOParams, jax.Array, jax.Array]:
  """Clips by global norm, both networks together or each by itself.

  The value loss has the scale of squared returns. Clipped together, its gradient
  decides how large the policy's is, and where it shrinks suddenly the policy's step
  grows before Adam's moments know.

  Returns:
    The gradient to apply, its norm before the clip (0 where not finite) and whether
    it is finite, [] bool. One that is not must not be applied, to either network.
  """
  norm = optax.tree.norm(grads)
  if options.separate_clip:
    grads = grads.replace(
      actor=_clip_to(grads.actor, optax.tree.norm(grads.actor), options),
      critic=_clip_to(grads.critic, optax.tree.norm(grads.critic), options),
    )
  else:
    grads = _clip_to(grads, norm, options)
  finite = jnp.isfinite(norm)
  return grads, jnp.where(finite, norm, 0.0), finite


def _clip_to(grads: Tree, norm: jax.Array, options: PPOOptions) -> Tree:
  scale = jnp.minimum(1.0, options.max_grad_norm / (norm + 1e-6))
  return jax.tree.map(lambda g: g * scale, grads)


def _group_size(total: int, regulariser: Regulariser | None) -> int:
  """Largest divisor of `total` that does not exceed the refresh interval."""
  wanted = total if regulariser is None else min(regulariser.refresh_every, total)
  return max(d for d in range(1, wanted + 1) if total % d == 0)
