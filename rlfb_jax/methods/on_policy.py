"""The on-policy skeleton: PPO fed by the true reward or by what people said.

`ppo`, `rbrl` and `rbrl_kl` are this one loop with other parts passed in:
  feedback    who judges, what is learned from it, and so what the agent is paid
  exploration a reward for novelty before anyone has judged
  repulsion   one more term of the actor's loss (or a shaped advantage or reward)
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.agents import ppo
from rlfb_jax.core.batching import one_seed_at_a_time
from rlfb_jax.core.normalization import NORMALIZE_EPSILON, RunningStatistics
from rlfb_jax.core.types import Key, Metrics
from rlfb_jax.envs.base import Environment, EnvState
from rlfb_jax.methods.algorithm import Algorithm, PerKind, PolicyNetwork, Session
from rlfb_jax.methods.collect import (
  EpisodeClock,
  Experience,
  collect,
  correlation,
  init_clock,
  stagger,
  track_episodes,
  true_reward,
)
from rlfb_jax.methods.parts import Exploration, Feedback, Intervention, make_propose
from rlfb_jax.repulsion import saturated_share

EXPLORE, LEARN = 'explore', 'learn'


class OnPolicyState(flax.struct.PyTreeNode):
  """A whole run of one seed.

  Attributes:
    agent: PPO.
    env: the environments, [N, ...].
    clock: true returns of training episodes, for metrics.
    feedback: archive, labels, reward model; None on the true reward.
    exploration: memory of states for pre-training, or None.
    key: randomness, [].
    env_steps: control steps taken, summed over environments, [] int32.
  """

  agent: ppo.PPOState
  env: EnvState
  clock: EpisodeClock
  feedback: Any
  exploration: Any
  key: Key
  env_steps: jax.Array


def make_on_policy(
  env: Environment,
  options: ppo.PPOOptions,
  total_env_steps: int,
  iterations_per_chunk: int,
  *,
  feedback: Feedback | None = None,
  exploration: Exploration | None = None,
  intervention: Intervention | None = None,
  teacher_reward: Callable[[EnvState], jax.Array] = true_reward,
) -> Algorithm:
  """Composes the parts.

  Args:
    env: where the agent acts.
    options: PPO's.
    total_env_steps: length of the run, for schedules.
    iterations_per_chunk: PPO updates between two visits of the host.
    feedback: without it the agent is paid the true reward.
    exploration: without it learning starts at once.
    intervention: needs `feedback`.
    teacher_reward: what the scripted teacher sees, `EnvState -> [N]`.
  """

  def init(key: Key) -> OnPolicyState:
    agent_key, env_key, feedback_key, run_key = jax.random.split(key, 4)
    env_state = env.reset(env_key, options.num_envs)
    if options.stagger_episodes:
      env_state = stagger(env_state, env.episode_length)
    return OnPolicyState(
      agent=ppo.init_state(agent_key, env.observation_size, env.action_size, options),
      env=env_state,
      clock=init_clock(env_state),
      feedback=feedback.init(feedback_key) if feedback else None,
      exploration=exploration.init() if exploration else None,
      key=run_key,
      env_steps=jnp.zeros((), jnp.int32),
    )

  def make_learner(phase: str) -> Callable[..., tuple[ppo.PPOState, Metrics]]:
    exploring = phase == EXPLORE and exploration is not None
    parts = None if exploring else intervention

    def learn(
      agent: ppo.PPOState,
      context: Any,
      experience: Experience,
      rewards: jax.Array,
      key: Key,
      progress: jax.Array,
    ) -> tuple[ppo.PPOState, Metrics]:
      shaping, regulariser = None, None
      if parts is not None:
        if parts.shape_rewards is not None:
          rewards = rewards + parts.shape_rewards(context, experience)
        if parts.shape_advantages is not None:
          shaping = parts.shape_advantages(context, experience)
        if parts.regulariser is not None:
          regulariser = parts.regulariser(context, agent, experience)
      agent, metrics = ppo.update(
        agent,
        rollout_of(experience),
        rewards,
        key,
        progress,
        options,
        num_epochs=exploration.num_epochs if exploring and exploration else None,
        regulariser=regulariser,
        shaping=shaping,
      )
      return agent, metrics | {'agent_reward': jnp.mean(rewards)}

    return one_seed_at_a_time(learn)

  learners = {phase: make_learner(phase) for phase in (EXPLORE, LEARN)}

  def iterate(state: OnPolicyState, phase: str) -> tuple[OnPolicyState, Metrics]:
    key, collect_key, update_key = jax.random.split(state.key, 3)
    env_state, experience = collect(
      env,
      lambda obs, k: ppo.act(state.agent, obs, k, options),
      state.env,
      collect_key,
      options.rollout_steps,
      teacher_reward,
      options.noise_steps,
    )
    metrics: Metrics = {'saturation': saturated_share(experience.action)}
    seen = feedback.observe(state.feedback, experience) if feedback else None
    if phase == LEARN and intervention is not None:
      seen = intervention.look(seen, experience)
    novelty = state.exploration
    if phase == EXPLORE and exploration is not None:
      novelty, rewards = exploration.reward(novelty, experience.obs)
    elif feedback is not None:
      rewards = feedback.reward(seen, experience.obs, experience.action)
    else:
      rewards = experience.env_reward
    learned = None
    if phase == LEARN and feedback is not None:
      learned = rewards
      metrics['reward_correlation'] = correlation(rewards, experience.env_reward)
    clock, episodes = track_episodes(state.clock, experience, learned)

    context = feedback.context(seen) if feedback else None
    progress = state.env_steps.astype(jnp.float32) / total_env_steps
    agent, learn_metrics = learners[phase](
      state.agent, context, experience, rewards, update_key, progress
    )
    state = state.replace(
      agent=agent,
      env=env_state,
      clock=clock,
      feedback=seen,
      exploration=novelty,
      key=key,
      env_steps=state.env_steps + options.steps_per_iteration,
    )
    return state, metrics | episodes | learn_metrics

  def make_chunk(
    phase: str,
  ) -> Callable[[OnPolicyState], tuple[OnPolicyState, Metrics]]:
    # Pre-training has more epochs, and the first sign of life should come early.
    length = 1 if phase == EXPLORE else iterations_per_chunk

    def chunk(state: OnPolicyState) -> tuple[OnPolicyState, Metrics]:
      state, metrics = jax.lax.scan(
        lambda s, _: iterate(s, phase), state, None, length=length
      )
      return state, reduce_metrics(metrics)

    return chunk

  def act(
    policy: tuple[ppo.ActorParams, RunningStatistics], obs: jax.Array
  ) -> jax.Array:
    actor, statistics = policy
    return jnp.tanh(ppo.policy(actor, statistics, obs, options)[0])

  def network(policy: tuple[ppo.ActorParams, RunningStatistics]) -> PolicyNetwork:
    actor, statistics = policy
    scale = jax.vmap(lambda s: s.std + NORMALIZE_EPSILON)(statistics)
    clip = options.observation_clip
    layers = ppo.mean_network(actor)
    return PolicyNetwork(layers, statistics.mean, scale, clip, 'tanh')

  explore_until = exploration.env_steps if exploration else 0
  phases = [LEARN] + ([EXPLORE] if exploration else [])
  return Algorithm(
    init=init,
    chunks={phase: make_chunk(phase) for phase in phases},
    phase=lambda env_steps: EXPLORE if env_steps < explore_until else LEARN,
    request=feedback.request if feedback else lambda env_steps: None,
    steps_per_chunk=options.steps_per_iteration * iterations_per_chunk,
    short_chunks={EXPLORE: options.steps_per_iteration},
    session=make_session(feedback) if feedback else None,
    diagnose=make_diagnosis(feedback, intervention) if feedback else None,
    policy=lambda state: (state.agent.params.actor, state.agent.statistics),
    act=act,
    network=network,
  )


def make_diagnosis(
  feedback: Feedback, intervention: Intervention | None
) -> Callable[[OnPolicyState], tuple[OnPolicyState, Metrics]]:
  """How good the learned reward is, and the intervention's diagnosis."""

  def diagnose(state: OnPolicyState) -> tuple[OnPolicyState, Metrics]:
    quality = feedback.quality(state.feedback)
    if intervention is None:
      return state, quality
    return state, quality | intervention.diagnose(state.feedback, state.agent)

  return diagnose


def make_session(feedback: Feedback) -> Session:
  """The feedback's session on a whole run's state."""

  def absorb(
    state: OnPolicyState, queries: Any, answers: Any, wanted: PerKind
  ) -> tuple[OnPolicyState, Metrics]:
    key, absorb_key, head_key = jax.random.split(state.key, 3)
    first = state.env_steps == feedback.first_session
    learned, metrics = feedback.absorb(
      state.feedback, absorb_key, queries, answers, wanted
    )
    # What the critic learned of novelty says nothing about the reward to come.
    params = state.agent.params
    fresh = ppo.reset_value_head(head_key, params)
    params = jax.tree.map(lambda new, old: jnp.where(first, new, old), fresh, params)
    agent = state.agent.replace(params=params)
    return state.replace(feedback=learned, agent=agent, key=key), metrics

  return Session(propose=make_propose(feedback), teach=feedback.teach, absorb=absorb)


def rollout_of(experience: Experience) -> ppo.Rollout:
  """The part of an experience that PPO may see: no reward, no pose."""
  assert experience.pre_tanh is not None
  assert experience.log_prob is not None
  return ppo.Rollout(
    obs=experience.obs,
    pre_tanh=experience.pre_tanh,
    log_prob=experience.log_prob,
    final_obs=experience.final_obs,
    terminated=experience.terminated,
    truncated=experience.truncated,
  )


def reduce_metrics(metrics: Metrics) -> Metrics:
  """Means over a chunk's iterations, each [iterations] -> [].

  Counts are summed, running totals keep their last value, and episode figures are
  weighted by how many episodes ended (NaN where none did).
  """
  episodes = metrics['episodes']
  reduced = {name: jnp.mean(values) for name, values in metrics.items()}
  reduced['episodes'] = jnp.sum(episodes)
  reduced['non_finite_updates'] = metrics['non_finite_updates'][-1]
  for name in ('episode_return', 'success_rate', 'learned_return'):
    if name not in metrics:
      continue
    known = jnp.isfinite(metrics[name])
    weighted = jnp.where(known, metrics[name] * episodes, 0.0)
    reduced[name] = jnp.sum(weighted) / jnp.sum(jnp.where(known, episodes, 0.0))
  return reduced
