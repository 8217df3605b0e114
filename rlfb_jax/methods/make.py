"""Each method by name: which parts it is composed of."""

from collections.abc import Callable

import jax

from rlfb_jax import repulsion as repulsion_lib
from rlfb_jax.core.suggest import check_known
from rlfb_jax.envs.base import Environment, EnvState
from rlfb_jax.feedback.schedule import Session, label_schedule, pretrain_chunks
from rlfb_jax.methods.algorithm import Algorithm
from rlfb_jax.methods.config import METHODS, Config
from rlfb_jax.methods.intervene import make_intervention, repulsion_policy
from rlfb_jax.methods.on_policy import make_on_policy, true_reward
from rlfb_jax.methods.parts import Exploration
from rlfb_jax.methods.ratings import make_rating_feedback, memory_bytes
from rlfb_jax.repulsion.options import check as check_repulsion
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
  run = config.run
  iterations = iterations_per_chunk(config, env)
  if run.method == 'ppo':
    return make_on_policy(env, config.ppo, run.total_env_steps, iterations)

  repulsion = None
  policy = repulsion_policy(config.ppo)
  if run.method == 'rbrl_kl':
    repulsion = repulsion_lib.make_repulsion(
      config.kl,
      policy,
      config.rating.num_classes,
      env.observation_size,
      env.action_size,
    )
  feedback = make_rating_feedback(
    config,
    env,
    sessions(config, env),
    env.pose_size,
    segment_return_scale(config, env),
    repulsion,
  )
  intervention = None
  if repulsion is not None:
    intervention = make_intervention(
      repulsion,
      policy,
      config.kl,
      feedback.reward,
      env.action_size,
      config.ppo.rollout_steps,
      config.feedback.segment_steps,
    )
  return make_on_policy(
    env,
    config.ppo,
    run.total_env_steps,
    iterations,
    feedback=feedback,
    exploration=_exploration(config, env),
    intervention=intervention,
    teacher_reward=teacher_reward,
  )


def check(config: Config, env: Environment) -> None:
  """Cross-checks before anything is built.

  Raises:
    ValueError: naming the value, the rule and the nearest value that works.
  """
  run = config.run
  check_known('--method', run.method, METHODS)
  chunk = config.ppo.steps_per_iteration * iterations_per_chunk(config, env)
  if run.total_env_steps % chunk:
    nearest = max(1, round(run.total_env_steps / chunk)) * chunk
    raise ValueError(
      f'--total_env_steps={run.total_env_steps} must be a multiple of {chunk}, the'
      f' environment steps between two visits of the host; try {nearest}.'
    )
  if run.method == 'ppo':
    return
  if config.feedback.segment_steps > env.episode_length:
    raise ValueError(
      f'--feedback_segment_steps={config.feedback.segment_steps} must not exceed'
      f' the {env.episode_length} steps of an episode of {env.name}.'
    )
  segment_return_scale(config, env)
  sessions(config, env)
  if run.method == 'rbrl_kl':
    check_repulsion(config.kl, config.rating.num_classes)


def iterations_per_chunk(config: Config, env: Environment) -> int:
  """PPO updates between two visits of the host: whole episodes where that fits."""
  iterations, rest = divmod(env.episode_length, config.ppo.rollout_steps)
  return iterations if iterations and not rest else 1


def sessions(config: Config, env: Environment) -> tuple[Session, ...]:
  """When labels are asked for, at chunk boundaries."""
  chunk = config.ppo.steps_per_iteration * iterations_per_chunk(config, env)
  return label_schedule(
    config.feedback,
    total_env_steps=config.run.total_env_steps,
    chunk_env_steps=chunk,
    episode_env_steps=env.episode_length * config.ppo.num_envs,
  )


def segment_return_scale(config: Config, env: Environment) -> float:
  """`G_max`: the segment return that fills the rater's scale.

  Raises:
    ValueError: if neither the task nor the user names one.
  """
  steps = config.feedback.segment_steps
  if config.rating.max_return > 0:
    return config.rating.max_return
  if env.max_segment_return <= 0:
    raise ValueError(
      f'--rating_max_return=0 leaves the scale to the task, but {env.name} names'
      f' none; give the return of a good segment of {steps} steps.'
    )
  # The tasks name it for the 50 steps that all papers use.
  return env.max_segment_return * steps / 50


def memory_needed(config: Config, env: Environment) -> int:
  """Bytes that a run keeps for archive and labels, all seeds together."""
  if config.run.method == 'ppo':
    return 0
  one = memory_bytes(config, env, sessions(config, env), env.pose_size)
  return one * config.run.num_seeds


def _exploration(config: Config, env: Environment) -> Exploration | None:
  chunk = config.ppo.steps_per_iteration * iterations_per_chunk(config, env)
  chunks = pretrain_chunks(config.feedback, chunk)
  if not chunks:
    return None
  return Exploration(
    init=lambda: init_state_entropy(chunks * chunk, env.observation_size),
    reward=lambda state, obs: state_entropy_reward(
      state, obs, config.pretrain.neighbours
    ),
    env_steps=chunks * chunk,
    num_epochs=config.pretrain.num_epochs,
  )
