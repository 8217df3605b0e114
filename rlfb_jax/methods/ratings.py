"""Feedback by ratings: clips are shown, rated, and a reward is learned from them."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key, Metrics
from rlfb_jax.envs.base import Environment
from rlfb_jax.feedback import archive as archive_lib
from rlfb_jax.feedback import store as store_lib
from rlfb_jax.feedback.archive import Archive
from rlfb_jax.feedback.clips import Clip
from rlfb_jax.feedback.queries import STRATEGIES, pool_size
from rlfb_jax.feedback.raters import Ratings, rate
from rlfb_jax.feedback.schedule import Session, labels_due
from rlfb_jax.feedback.store import RatingStore
from rlfb_jax.methods.algorithm import PerKind, Request
from rlfb_jax.methods.collect import Experience
from rlfb_jax.methods.config import Config
from rlfb_jax.methods.parts import Feedback
from rlfb_jax.repulsion import ClassStatistics, Repulsion
from rlfb_jax.reward.fit import make_rating_fit
from rlfb_jax.reward.model import RewardModel, RewardModelState, make_reward_model
from rlfb_jax.reward.ratings import class_boundaries, normalise_returns


class RatingFeedbackState(flax.struct.PyTreeNode):
  """What is remembered of the conversation.

  Attributes:
    archive: recent behaviour, the pool that queries are drawn from.
    store: clips that were rated.
    reward_model: the reward learned from them.
    classes: Gaussians of the rating classes, or None without repulsion.
    boundaries: mean r_hat per step between two neighbouring classes, [n - 1].
    strikes: diagnoses in a row that found the policy collapsed, [] int32.
    repelling: whether the repulsion is on; a collapsed policy ends it, [] bool.
    env_steps: environment steps seen so far, [] int32.
  """

  archive: Archive
  store: RatingStore
  reward_model: RewardModelState
  classes: ClassStatistics | None
  boundaries: jax.Array
  strikes: jax.Array
  repelling: jax.Array
  env_steps: jax.Array


class RatingQueries(NamedTuple):
  """Clips to rate.

  Attributes:
    clip: what the teacher is shown, leaves [k, H, ...].
    teacher_rewards: what a scripted teacher judges by, [k, H].
    mean_segment_return: of all behaviour in the archive, [].
  """

  clip: Clip
  teacher_rewards: jax.Array
  mean_segment_return: jax.Array


def archive_steps(config: Config, sessions: tuple[Session, ...]) -> int:
  """Steps per environment from which the last session may still choose."""
  ppo = config.ppo
  rollouts = -(-sessions[-1].env_steps // ppo.steps_per_iteration)
  return max(rollouts, 1) * ppo.rollout_steps


def memory_bytes(
  config: Config, env: Environment, sessions: tuple[Session, ...], pose_size: int
) -> int:
  """Bytes of archive and store for one seed."""
  sizes = env.observation_size, env.action_size, pose_size
  archive = archive_lib.memory_bytes(
    archive_steps(config, sessions), config.ppo.num_envs, *sizes
  )
  clip = 4 * config.feedback.segment_steps * sum(sizes)
  return archive + sessions[-1].asked * (clip + 17)


def make_rating_feedback(
  config: Config,
  env: Environment,
  sessions: tuple[Session, ...],
  pose_size: int,
  max_segment_return: float,
  repulsion: Repulsion | None,
) -> Feedback:
  """Binds teacher, queries, store and reward model.

  Args:
    config: the run's.
    env: where the agent acts.
    sessions: when labels are asked for, and how many.
    pose_size: numbers in a pose.
    max_segment_return: `G_max` of the task.
    repulsion: whose class statistics are refitted with the reward, or None.
  """
  options = config.feedback
  segment_steps = options.segment_steps
  reward_model = make_reward_model(config.reward, env.observation_size, env.action_size)
  fit = make_rating_fit(config.reward, config.rating.num_classes)
  sizes = env.observation_size, env.action_size, pose_size
  per_session = max(session.num_labels for session in sessions)

  def init(key: Key) -> RatingFeedbackState:
    return RatingFeedbackState(
      archive=archive_lib.init_archive(
        archive_steps(config, sessions),
        config.ppo.rollout_steps,
        config.ppo.num_envs,
        *sizes,
      ),
      store=store_lib.init_store(sessions[-1].asked, segment_steps, *sizes),
      reward_model=reward_model.init(key),
      classes=repulsion.init() if repulsion else None,
      boundaries=jnp.zeros(config.rating.num_classes - 1),
      strikes=jnp.zeros((), jnp.int32),
      repelling=jnp.ones((), bool),
      env_steps=jnp.zeros((), jnp.int32),
    )

  def observe(
    state: RatingFeedbackState, experience: Experience
  ) -> RatingFeedbackState:
    rollout = archive_lib.Rollout(
      obs=experience.obs,
      action=experience.action,
      pose=experience.pose,
      env_reward=experience.teacher_reward,
      done=experience.terminated | experience.truncated,
    )
    steps = experience.obs.shape[0] * experience.obs.shape[1]
    return state.replace(
      archive=archive_lib.append(state.archive, rollout),
      env_steps=state.env_steps + steps,
    )

  def propose(
    state: RatingFeedbackState, key: Key, strategies: PerKind
  ) -> RatingQueries:
    strategy = strategies.ratings
    pool_key, choose_key = jax.random.split(key)
    size = pool_size(strategy, per_session, options.large_batch)
    index = archive_lib.sample(pool_key, state.archive, size, segment_steps)
    clip, rewards = archive_lib.gather(state.archive, index, segment_steps)

    def ensemble_r_hat(clip: Clip) -> jax.Array:
      return reward_model.r_hat_members(state.reward_model, clip.obs, clip.action)

    chosen = STRATEGIES[strategy](choose_key, ensemble_r_hat, clip, per_session)
    held = state.archive.filled * state.archive.steps.done.shape[1]
    mean_reward = jnp.sum(state.archive.steps.env_reward) / jnp.maximum(held, 1)
    return RatingQueries(
      clip=jax.tree.map(lambda x: x[chosen], clip),
      teacher_rewards=rewards[chosen],
      mean_segment_return=mean_reward * segment_steps,
    )

  def teach(queries: RatingQueries, key: Key) -> Ratings:
    return rate(
      key,
      queries.teacher_rewards,
      config.rating,
      max_segment_return,
      queries.mean_segment_return,
    )

  def absorb(
    state: RatingFeedbackState,
    key: Key,
    queries: RatingQueries,
    answers: Ratings,
    wanted: PerKind,
  ) -> tuple[RatingFeedbackState, Metrics]:
    fit_key, class_key = jax.random.split(key)
    store = store_lib.append(
      state.store,
      queries.clip,
      answers.rating,
      answers.skipped,
      env_steps=state.env_steps,
      wanted=wanted.ratings,
    )
    model, metrics = fit(fit_key, state.reward_model, store)
    state = state.replace(store=store, reward_model=model)
    state = state.replace(boundaries=_class_boundaries(state, reward_model, config))
    if repulsion is not None:
      state = state.replace(
        classes=repulsion.fit(
          class_key,
          store.clip.obs,
          store.clip.action,
          store.rating,
          store_lib.usable_labels(store),
        )
      )
    skips = jnp.sum(answers.skipped & (jnp.arange(per_session) < wanted.ratings))
    return state, metrics | {
      'labels_asked': store.asked,
      'labels_skipped': skips,
      'rated_return': jnp.mean(answers.segment_return),
    }

  strategies = {session.env_steps: session.query for session in sessions}

  def request(env_steps: int) -> Request | None:
    labels = labels_due(sessions, env_steps)
    if not labels:
      return None
    return Request(PerKind(labels, 0), PerKind(strategies[env_steps], ''))

  return Feedback(
    init=init,
    observe=observe,
    reward=lambda state, obs, action: reward_model.r_hat(
      state.reward_model, obs, action
    ),
    propose=propose,
    teach=teach,
    absorb=absorb,
    context=lambda state: state.replace(archive=None, store=None),
    is_first=lambda state: state.store.asked == 0,
    request=request,
  )


def _class_boundaries(
  state: RatingFeedbackState, reward_model: RewardModel, config: Config
) -> jax.Array:
  """Mean r_hat per step at which the predicted class changes, [n - 1].

  Chosen, as in training, so that as many labelled clips lie in each class as have
  its label.
  """
  clip = state.store.clip
  usable = store_lib.usable_labels(state.store)
  mean = jnp.mean(reward_model.r_hat(state.reward_model, clip.obs, clip.action), 1)
  low = jnp.min(jnp.where(usable, mean, jnp.inf))
  high = jnp.max(jnp.where(usable, mean, -jnp.inf))
  taus = class_boundaries(
    normalise_returns(mean, usable),
    state.store.rating,
    usable,
    config.rating.num_classes,
  )[1:-1]
  return jnp.where(jnp.any(usable), low + taus * (high - low), 0.0)


def predict_classes(
  boundaries: jax.Array, rewards: jax.Array, segment_steps: int
) -> jax.Array:
  """The rating that r_hat expects for consecutive segments of a rollout.

  Args:
    boundaries: as in `RatingFeedbackState`, [n - 1].
    rewards: r_hat of each step, [T, N].
    segment_steps: H; a last piece shorter than H is left out.

  Returns:
    Classes 0..n-1, [N * (T // H)] int32.
  """
  pieces = rewards.shape[0] // segment_steps
  whole = rewards[: pieces * segment_steps]
  means = jnp.mean(whole.reshape(pieces, segment_steps, -1), axis=1).reshape(-1)
  return jnp.sum(means[:, None] > boundaries, axis=-1, dtype=jnp.int32)
