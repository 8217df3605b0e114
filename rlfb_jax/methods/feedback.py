"""Feedback: behaviour is remembered, people are asked, a reward is learned.

One record serves ratings, pairs, and both in the same run; which of them it is
decides what is in the state and what is compiled, not how it works.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.core.padding import Count, capacity, fill
from rlfb_jax.core.types import Key, Metrics
from rlfb_jax.feedback import archive as archive_lib
from rlfb_jax.feedback.answers import usable_labels
from rlfb_jax.feedback.archive import Archive
from rlfb_jax.feedback.clips import Clip
from rlfb_jax.methods.algorithm import PerKind, Request
from rlfb_jax.methods.collect import Experience
from rlfb_jax.methods.parts import Feedback
from rlfb_jax.methods.questions import Questions, Sizes
from rlfb_jax.methods.reward_quality import held_out_quality
from rlfb_jax.repulsion import ClassStatistics, Repulsion
from rlfb_jax.reward.model import RewardModel, RewardModelState
from rlfb_jax.reward.ratings import class_boundaries, normalise_returns


class FeedbackState(flax.struct.PyTreeNode):
  """What is remembered of the conversation.

  Attributes:
    archive: recent behaviour, the pool that queries are drawn from.
    answers: stores of answers; None for a kind that is never asked.
    reward_model: the reward learned from them.
    outer: what MRN's outer step carries, or None.
    classes: Gaussians of the rating classes, or None without repulsion.
    boundaries: mean r_hat per step between two neighbouring classes, [n - 1], or
      None without repulsion. Infinite beyond the classes that the run has.
    strikes: looks in a row that found the policy collapsed, [] int32.
    repelling: whether the repulsion is on; a collapsed policy ends it, [] bool.
    env_steps: environment steps seen so far, [] int32.
  """

  archive: Archive
  answers: PerKind
  reward_model: RewardModelState
  outer: Any
  classes: ClassStatistics | None
  boundaries: jax.Array | None
  strikes: jax.Array
  repelling: jax.Array
  env_steps: jax.Array


class ArchiveShape(NamedTuple):
  """The archive: L steps of N environments, written T at a time."""

  length: int
  rollout_steps: int
  num_envs: int


# `(key, model, ratings | None, pairs | None) -> (model, metrics)`.
Fit = Callable[..., tuple[RewardModelState, Metrics]]


def make_feedback(
  archive: ArchiveShape,
  sizes: Sizes,
  questions: PerKind,
  reward_model: RewardModel,
  fit: Fit,
  combine: Callable[[jax.Array, jax.Array], jax.Array],
  *,
  num_members: int,
  segment_steps: int,
  num_classes: Count = 0,
  repulsion: Repulsion | None = None,
  init_outer: Callable[[RewardModelState], Any] | None = None,
) -> Feedback:
  """Binds behaviour, questions and reward model.

  Args:
    archive: how much behaviour is remembered.
    sizes: of observations, actions and poses.
    questions: `Questions`, or None for a kind that is never asked.
    reward_model: what is learned.
    fit: how.
    combine: `(members [K, ...], env_steps []) -> [...]`, the agent's reward.
    num_members: K, members.
    segment_steps: H, the length of the clips that the reward is judged by.
    num_classes: n, where clips are rated.
    repulsion: whose class statistics are refitted with the reward, or None.
    init_outer: `reward model -> state` of MRN's outer step, or None.
  """
  kinds: list[Questions] = [q for q in questions if q is not None]

  def init(key: Key) -> FeedbackState:
    model = reward_model.init(key)
    return FeedbackState(
      archive=archive_lib.init_archive(*archive, *sizes),
      answers=PerKind(*(q.init() if q else None for q in questions)),
      reward_model=model,
      outer=init_outer(model) if init_outer else None,
      classes=repulsion.init() if repulsion else None,
      boundaries=_no_boundaries(num_classes) if repulsion else None,
      strikes=jnp.zeros((), jnp.int32),
      repelling=jnp.ones((), bool),
      env_steps=jnp.zeros((), jnp.int32),
    )

  def observe(state: FeedbackState, experience: Experience) -> FeedbackState:
    rollout = archive_lib.ArchivedSteps(
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

  def members(state: FeedbackState, obs: jax.Array, action: jax.Array) -> jax.Array:
    return reward_model.r_hat_members(state.reward_model, obs, action)

  def reward(state: FeedbackState, obs: jax.Array, action: jax.Array) -> jax.Array:
    return combine(members(state, obs, action), state.env_steps)

  def r_hat(state: FeedbackState, obs: jax.Array, action: jax.Array) -> jax.Array:
    return reward_model.r_hat(state.reward_model, obs, action)

  def propose(
    state: FeedbackState, key: Key, strategies: PerKind, wanted: PerKind
  ) -> PerKind:
    # As the labels trained them: standardised ones are on no scale of the loss.
    def of_clip(clip: Clip) -> jax.Array:
      return reward_model.outputs(state.reward_model, clip.obs, clip.action)

    return PerKind(
      *(
        kind.propose(state.archive, of_clip, store, k, strategy, number)
        if kind is not None and strategy
        else None
        for kind, store, strategy, number, k in zip(
          questions,
          state.answers,
          strategies,
          wanted,
          jax.random.split(key),
          strict=True,
        )
      )
    )

  def teach(queries: PerKind, key: Key) -> PerKind:
    return PerKind(
      *(
        kind.teach(asked, k) if asked is not None else None
        for kind, asked, k in zip(
          questions, queries, jax.random.split(key), strict=True
        )
      )
    )

  def with_reward_model(state: FeedbackState, model: RewardModelState) -> FeedbackState:
    state = state.replace(reward_model=model)
    if repulsion is None:
      return state
    return state.replace(boundaries=_boundaries(state, reward_model, num_classes))

  def absorb(
    state: FeedbackState, key: Key, queries: PerKind, answers: PerKind, wanted: PerKind
  ) -> tuple[FeedbackState, Metrics]:
    fit_key, class_key = jax.random.split(key)
    metrics: Metrics = {}
    stores = []
    for kind, store, asked, answer, count in zip(
      questions, state.answers, queries, answers, wanted, strict=True
    ):
      if asked is not None:
        store, told = kind.append(store, asked, answer, count, state.env_steps)
        metrics |= told
      stores.append(store)
    model, fitted = fit(fit_key, state.reward_model, *stores)
    state = with_reward_model(state.replace(answers=PerKind(*stores)), model)
    if repulsion is not None:
      ratings = state.answers.ratings
      state = state.replace(
        classes=repulsion.fit(
          class_key,
          ratings.clip.obs,
          ratings.clip.action,
          ratings.rating,
          usable_labels(ratings),
        ),
      )
    return state, metrics | fitted

  sessions = [
    {s.env_steps: s for s in kind.sessions} if kind else {} for kind in questions
  ]

  def request(env_steps: int) -> Request | None:
    due = [of_kind.get(env_steps) for of_kind in sessions]
    if not any(due):
      return None
    return Request(
      PerKind(*(s.num_labels if s else 0 for s in due)),
      PerKind(*(s.query if s else '' for s in due)),
    )

  first_session = min(kind.sessions[0].env_steps for kind in kinds)

  def quality(state: FeedbackState) -> Metrics:
    seen = held_out_quality(
      state.archive,
      lambda clip: reward(state, clip.obs, clip.action),
      segment_steps,
      state.env_steps,
    )
    # Before anybody has been asked there is nothing to be good or bad at it.
    asked = state.env_steps > first_session
    return {name: jnp.where(asked, value, jnp.nan) for name, value in seen.items()}

  return Feedback(
    init=init,
    observe=observe,
    members=members,
    combine=combine,
    num_members=num_members,
    reward=reward,
    r_hat=r_hat,
    propose=propose,
    teach=teach,
    absorb=absorb,
    with_reward_model=with_reward_model,
    context=lambda state: state.replace(archive=None, answers=None),
    request=request,
    first_session=first_session,
    quality=quality,
  )


def _no_boundaries(num_classes: Count) -> jax.Array:
  """Before the first labels, [n - 1]."""
  inner = num_classes - 1
  return fill(inner, jnp.zeros(capacity(inner)), jnp.inf)


def _boundaries(
  state: FeedbackState, reward_model: RewardModel, num_classes: Count
) -> jax.Array:
  """Mean r_hat per step at which the predicted class changes, [n - 1].

  Chosen so that as many labelled clips lie in each class as have its label; midway
  between neighbours, whatever boundaries the fit takes.
  """
  store = state.answers.ratings
  usable = usable_labels(store)
  r_hat = reward_model.r_hat(state.reward_model, store.clip.obs, store.clip.action)
  mean = jnp.mean(r_hat, 1)
  low = jnp.min(jnp.where(usable, mean, jnp.inf))
  high = jnp.max(jnp.where(usable, mean, -jnp.inf))
  normalised = normalise_returns(mean, usable)
  rows = capacity(num_classes)
  taus = class_boundaries(normalised, store.rating, usable, rows)[1:-1]
  found = jnp.where(jnp.any(usable), low + taus * (high - low), 0.0)
  # What is better than all that was labelled is of the best class, not beyond it.
  return fill(num_classes - 1, found, jnp.inf)


def predict_classes(
  boundaries: jax.Array, rewards: jax.Array, segment_steps: int
) -> jax.Array:
  """The rating that r_hat expects for consecutive segments of a rollout.

  Args:
    boundaries: as in `FeedbackState`, [n - 1].
    rewards: r_hat of each step, [T, N].
    segment_steps: H; a last piece shorter than H is left out.

  Returns:
    Classes 0..n-1, [N * (T // H)] int32.
  """
  pieces = rewards.shape[0] // segment_steps
  whole = rewards[: pieces * segment_steps]
  means = jnp.mean(whole.reshape(pieces, segment_steps, -1), axis=1).reshape(-1)
  return jnp.sum(means[:, None] > boundaries, axis=-1, dtype=jnp.int32)
