"""How the repulsion of RbRL-KL enters PPO: through openings that PPO has anyway."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlfb_jax.agents import ppo
from rlfb_jax.agents.regulariser import Regulariser
from rlfb_jax.core import distributions
from rlfb_jax.core.types import Key, Metrics, Params
from rlfb_jax.feedback import archive as archive_lib
from rlfb_jax.methods.collect import Experience
from rlfb_jax.methods.feedback import FeedbackState
from rlfb_jax.methods.parts import Intervention
from rlfb_jax.methods.watch import gated_classes, look, worth
from rlfb_jax.repulsion import (
  ClassStatistics,
  Policy,
  PolicyBatch,
  Repulsion,
  RepulsionOptions,
  fade,
  join_gradients,
  saturated_share,
)
from rlfb_jax.repulsion.policy import unsquash

# Diagnostics draw their noise from a stream of their own, so that looking at a run
# cannot change it.
_DIAGNOSTIC_KEY = 20_250_103


def repulsion_policy(options: ppo.PPOOptions) -> Policy:
  """PPO's policy as the repulsion calls it: params are (actor, statistics)."""

  def policy(params: Params, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    actor, statistics = params
    return ppo.policy(actor, statistics, obs, options)

  return policy


def make_intervention(
  repulsion: Repulsion,
  policy: Policy,
  options: RepulsionOptions,
  r_hat: Callable[[FeedbackState, jax.Array, jax.Array], jax.Array],
  action_size: int,
  rollout_steps: int,
  segment_steps: int,
) -> Intervention:
  """Turns the repulsion's pieces into what the on-policy skeleton takes.

  Args:
    repulsion: what pushes.
    policy: that of `repulsion_policy`, which `repulsion` was made for.
    options: its options.
    r_hat: of steps, as in `Feedback`; read by the gate on classes.
    action_size: da.
    rollout_steps: T; diagnostics look at the newest T steps.
    segment_steps: H, the length at which classes are predicted.
  """

  def pushing(
    feedback: FeedbackState, steps: Experience | archive_lib.ArchivedSteps
  ) -> ClassStatistics:
    return gated_classes(
      repulsion, feedback, r_hat, steps.obs, steps.action, segment_steps
    )

  def regulariser(
    feedback: FeedbackState, agent: ppo.PPOState, experience: Experience
  ) -> Regulariser:
    classes = pushing(feedback, experience)
    flat = jax.tree.map(
      lambda x: x.reshape(-1, *x.shape[2:]),
      (experience.obs, experience.pre_tanh, experience.log_prob),
    )
    num_rows = flat[0].shape[0]
    room = fade(saturated_share(experience.action), options.saturation_limit)

    def loss(actor: Params, key: Key) -> tuple[jax.Array, Metrics]:
      row_key, noise_key = jax.random.split(key)
      rows = jax.random.randint(row_key, (options.kl_batch,), 0, num_rows)
      obs, raw_action, log_prob = (x[rows] for x in flat)
      batch = PolicyBatch(obs=obs, raw_action=raw_action, log_prob=log_prob)
      assert repulsion.term is not None
      return repulsion.term((actor, agent.statistics), classes, batch, noise_key)

    def combine(
      rl: Params,
      term: Params,
      approx_kl: jax.Array,
      signal_norm: jax.Array | None = None,
    ) -> tuple[Params, Metrics]:
      # The term lies outside PPO's clip. On minibatches past this divergence from the
      # policy that collected the data it rests: the reward alone goes on as in RbRL.
      within = (approx_kl <= options.approx_kl_gate).astype(jnp.float32)
      joined, metrics = join_gradients(rl, term, options, within * room, signal_norm)
      return joined, metrics | {'kl/gate_open': within, 'kl/room': room}

    return Regulariser(loss, combine, options.refresh_every)

  def shape_rewards(feedback: FeedbackState, experience: Experience) -> jax.Array:
    assert repulsion.shape_rewards is not None
    classes = pushing(feedback, experience)
    return repulsion.shape_rewards(classes, experience.obs, experience.action)

  def shape_advantages(feedback: FeedbackState, experience: Experience) -> jax.Array:
    assert repulsion.shape_advantages is not None
    classes = pushing(feedback, experience)
    bonus = repulsion.shape_advantages(classes, experience.obs, experience.action)
    # Advantages have unit deviation; the bonus keeps to the same budget as a
    # gradient of the term would.
    spread = jnp.std(bonus)
    over = spread > options.gradient_budget
    scale = jnp.where(over, options.gradient_budget / jnp.where(over, spread, 1.0), 1.0)
    scale *= fade(saturated_share(experience.action), options.saturation_limit)
    return jnp.where(jnp.isfinite(spread), bonus * scale, 0.0)

  def look_at(feedback: FeedbackState, experience: Experience) -> FeedbackState:
    assert experience.pre_tanh is not None
    assert experience.log_prob is not None
    # Of executed actions, one draw a state.
    log_det = distributions.squash_log_det(experience.pre_tanh)
    entropy = jnp.mean(log_det - experience.log_prob)
    saturation = saturated_share(experience.action)
    return look(repulsion, feedback, entropy, saturation, action_size)

  def diagnose(feedback: FeedbackState, agent: ppo.PPOState) -> Metrics:
    newest = archive_lib.latest(feedback.archive, rollout_steps)
    key = jax.random.fold_in(jax.random.key(_DIAGNOSTIC_KEY), feedback.env_steps)
    row_key, key = jax.random.split(key)
    obs, action = (x.reshape(-1, x.shape[-1]) for x in (newest.obs, newest.action))
    rows = jax.random.randint(row_key, (options.kl_batch,), 0, obs.shape[0])
    obs, raw_action = obs[rows], unsquash(action[rows])
    params = (agent.params.actor, agent.statistics)
    # Ratios of one: the term as it stands before the next update.
    log_prob = distributions.log_prob(raw_action, *policy(params, obs))
    batch = PolicyBatch(obs=obs, raw_action=raw_action, log_prob=log_prob)
    classes = pushing(feedback, newest)
    assert feedback.classes is not None
    metrics = repulsion.diagnose(params, feedback.classes, batch, key)
    return metrics | worth(repulsion, feedback, classes, params, batch, key)

  return Intervention(
    shape_rewards=shape_rewards if repulsion.shape_rewards else None,
    shape_advantages=shape_advantages if repulsion.shape_advantages else None,
    regulariser=regulariser if repulsion.term else None,
    look=look_at,
    diagnose=diagnose,
  )
