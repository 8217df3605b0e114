"""Each method by name: which parts it is composed of."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rlfb_jax import repulsion as repulsion_lib
from rlfb_jax.agents.ddpg import make_ddpg
from rlfb_jax.agents.off_policy import OffPolicyAgent
from rlfb_jax.agents.off_policy_config import OffPolicyOptions
from rlfb_jax.agents.sac import make_sac
from rlfb_jax.core.config import is_traced
from rlfb_jax.core.types import Key, Metrics
from rlfb_jax.envs.base import Environment, EnvState
from rlfb_jax.methods import plan
from rlfb_jax.methods.algorithm import Algorithm, PerKind
from rlfb_jax.methods.check import check
from rlfb_jax.methods.collect import true_reward
from rlfb_jax.methods.config import Config, RuneOptions
from rlfb_jax.methods.feedback import make_feedback
from rlfb_jax.methods.intervene import make_intervention, repulsion_policy
from rlfb_jax.methods.intervene_off_policy import (
  make_off_policy_intervention,
)
from rlfb_jax.methods.off_policy import make_off_policy
from rlfb_jax.methods.off_policy_options import updates_per_iteration
from rlfb_jax.methods.on_policy import make_on_policy
from rlfb_jax.methods.outer import make_outer_step
from rlfb_jax.methods.pair_questions import make_pair_questions
from rlfb_jax.methods.parts import Exploration, Feedback
from rlfb_jax.methods.rating_questions import make_rating_questions
from rlfb_jax.methods.recipes import KL, MRN, RATINGS, RUNE, SURF
from rlfb_jax.repulsion import Policy, Repulsion
from rlfb_jax.reward.fit import make_fit
from rlfb_jax.reward.meta import QValues
from rlfb_jax.reward.meta_step import MetaStep, init_meta, make_meta_step
from rlfb_jax.reward.model import (
  RewardModelState,
  aggregate,
  make_reward_model,
  mean_and_std,
)
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.state_entropy import init_state_entropy, state_entropy_reward


def make(
  config: Config,
  env: Environment,
  teacher_reward: Callable[[EnvState], jax.Array] = true_reward,
) -> Algorithm:
  """Composes the method that `config.run.method` names.

  Args:
    config: the run's configuration.
    env: where the agent acts.
    teacher_reward: what the scripted teacher judges by, `EnvState -> [N]`.

  Raises:
    ValueError: if options do not go together, in one sentence.
  """
  check(config, env)
  if config.recipe.replays:
    return _off_policy(config, env, teacher_reward)
  return _on_policy(config, env, teacher_reward)


def _on_policy(
  config: Config, env: Environment, teacher_reward: Callable[[EnvState], jax.Array]
) -> Algorithm:
  feedback, intervention = None, None
  if config.recipe.ask:
    policy = repulsion_policy(config.ppo)
    repulsion = _repulsion(config, env, policy)
    feedback = _feedback(config, env, repulsion)
    if repulsion is not None:
      intervention = make_intervention(
        repulsion,
        policy,
        config.kl,
        feedback.r_hat,
        env.action_size,
        config.ppo.rollout_steps,
        config.feedback.segment_steps,
      )
  return make_on_policy(
    env,
    config.ppo,
    config.total_env_steps,
    plan.iterations_per_chunk(config, env),
    feedback=feedback,
    exploration=_exploration(config, env, feedback) if feedback else None,
    intervention=intervention,
    teacher_reward=teacher_reward,
  )


def _off_policy(
  config: Config, env: Environment, teacher_reward: Callable[[EnvState], jax.Array]
) -> Algorithm:
  agent = make_agent(config, env)
  feedback, intervention, outer = None, None, None
  if config.recipe.ask:
    repulsion = _repulsion(config, env, agent.policy)
    feedback = _feedback(config, env, repulsion)
    if repulsion is not None:
      intervention = make_off_policy_intervention(
        repulsion,
        agent,
        config.kl,
        feedback,
        env.action_size,
        env.episode_length,
        config.feedback.segment_steps,
      )
    if MRN in config.recipe.add:
      meta = _meta(config, env, agent.q_values, agent.critic_learning_rate)
      spent_at = plan.budget_spent_at(config, env)
      outer = make_outer_step(config.mrn, meta, agent, feedback, spent_at)
  return make_off_policy(
    env,
    agent,
    config.replay,
    _agent_options(config).batch_size,
    updates_per_iteration(config.run.updates_per_step, config.replay.num_envs),
    plan.replay_capacity(config),
    feedback=feedback,
    neighbours=config.pretrain.neighbours,
    outer=outer,
    intervention=intervention,
    teacher_reward=teacher_reward,
  )


def _agent_options(config: Config) -> OffPolicyOptions:
  return config.sac if config.recipe.agent == 'sac' else config.ddpg


def make_agent(config: Config, env: Environment) -> OffPolicyAgent:
  """The off-policy agent that the configuration names."""
  sizes = env.observation_size, env.action_size
  regularised = KL in config.recipe.add
  if config.recipe.agent == 'sac':
    return make_sac(config.sac, *sizes, regularised=regularised)
  return make_ddpg(config.ddpg, *sizes, regularised=regularised)


def _repulsion(config: Config, env: Environment, policy: Policy) -> Repulsion | None:
  if KL not in config.recipe.add:
    return None
  return repulsion_lib.make_repulsion(
    config.kl,
    policy,
    config.rating.num_classes,
    env.observation_size,
    env.action_size,
  )


def questions(config: Config, env: Environment) -> PerKind:
  """What people are asked, `Questions` by kind."""
  sizes = env.observation_size, env.action_size, env.pose_size
  sessions = plan.sessions(config, env)
  ratings = pairs = None
  if sessions.ratings:
    ratings = make_rating_questions(
      config.rating,
      config.feedback,
      sessions.ratings,
      sizes,
      plan.segment_return_scale(config, env),
    )
  if sessions.pairs:
    surf = SURF in config.recipe.add
    pairs = make_pair_questions(
      config.teacher,
      config.pairs,
      sessions.pairs,
      sizes,
      plan.num_envs(config),
      env.episode_length,
      margin=config.surf.margin if surf else 0,
      unlabelled_per_label=config.surf.unlabelled_per_label if surf else 0,
    )
  return PerKind(ratings, pairs)


def _reward_options(config: Config) -> RewardOptions:
  """With the scale decided: a rating loss fixes none, and a temperature needs one."""
  reward, recipe = config.reward, config.recipe
  if reward.standardise is not None:
    return reward
  decided = recipe.replays and recipe.ask == RATINGS
  return dataclasses.replace(reward, standardise=decided)


def _feedback(
  config: Config, env: Environment, repulsion: Repulsion | None
) -> Feedback:
  recipe, reward = config.recipe, _reward_options(config)
  asked = questions(config, env)
  surf = SURF in recipe.add
  fit = make_fit(
    reward,
    config.rating.num_classes if recipe.rates else None,
    config.preference if recipe.compares else None,
    config.surf if surf else None,
  )

  def fit_all(
    key: Key, model: RewardModelState, ratings: Any, pairs: Any
  ) -> tuple[RewardModelState, Metrics]:
    if pairs is None:
      return fit(key, model, ratings, None, None)
    return fit(key, model, ratings, pairs.asked, pairs.unlabelled)

  model = make_reward_model(reward, env.observation_size, env.action_size)
  init_outer = None
  if MRN in recipe.add:
    init_outer = functools.partial(init_meta, config.mrn)
  return make_feedback(
    plan.archive_shape(config, env),
    (env.observation_size, env.action_size, env.pose_size),
    asked,
    model,
    fit_all,
    make_combine(reward, config.rune if RUNE in recipe.add else None),
    num_members=reward.ensemble_size,
    segment_steps=(
      config.pairs.segment_steps if recipe.compares else config.feedback.segment_steps
    ),
    num_classes=config.rating.num_classes,
    repulsion=repulsion,
    init_outer=init_outer,
  )


def make_combine(
  reward: RewardOptions, rune: RuneOptions | None
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """What the agent is paid for what the members say."""

  def combine(members: jax.Array, env_steps: jax.Array) -> jax.Array:
    total = aggregate(members, reward.aggregation, reward.aggregation_weight)
    if rune is not None:
      elapsed = env_steps.astype(jnp.float32)
      log1p = jnp.log1p if is_traced(rune.decay) else math.log1p
      factor = rune.bonus * jnp.exp(elapsed * log1p(-rune.decay))
      total += factor * mean_and_std(members)[1]
    return total

  return combine


def _meta(
  config: Config, env: Environment, q_values: QValues, critic_learning_rate: float
) -> MetaStep:
  recipe = config.recipe
  return make_meta_step(
    config.mrn,
    _reward_options(config),
    make_reward_model(_reward_options(config), env.observation_size, env.action_size),
    q_values,
    critic_learning_rate,
    session_labels=config.pairs.labels_per_session,
    session_ratings=config.feedback.labels_per_session,
    margin=config.surf.margin if SURF in recipe.add else 0,
    num_classes=config.rating.num_classes if recipe.rates else None,
    pairs=config.preference if recipe.compares else None,
  )


def _exploration(
  config: Config, env: Environment, feedback: Feedback
) -> Exploration | None:
  """What pays PPO before anybody has been asked."""
  if not min(options.pretrain_steps for options in plan.timetables(config)):
    return None
  steps = feedback.first_session
  return Exploration(
    init=lambda: init_state_entropy(steps, env.observation_size),
    reward=lambda state, obs: state_entropy_reward(
      state, obs, config.pretrain.neighbours
    ),
    env_steps=steps,
    num_epochs=config.pretrain.num_epochs,
  )


def memory_needed(config: Config, env: Environment) -> plan.Memory:
  """What a run keeps beside networks and environments, all seeds together."""
  stores = [q.memory_bytes for q in questions(config, env) if q is not None]
  return plan.memory(config, env, sum(stores))


def check_memory(config: Config, env: Environment) -> None:
  """Refuses a run that cannot fit, before anything is allocated.

  Raises:
    ValueError: naming what it needs, what is free, and what would make it smaller.
  """
  plan.refuse_beyond(memory_needed(config, env), plan.memory_available(), config)
