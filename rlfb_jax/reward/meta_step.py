"""MRN's bi-level step: which labels, which optimiser, and what is reported."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from rlfb_jax.core.batching import select_rows
from rlfb_jax.core.networks import MLP
from rlfb_jax.core.padding import Count
from rlfb_jax.core.types import Key, Metrics, Params
from rlfb_jax.feedback.answers import usable_labels
from rlfb_jax.feedback.clips import Segments, middle
from rlfb_jax.feedback.preference_store import PreferenceStore
from rlfb_jax.feedback.rating_store import RatingStore
from rlfb_jax.reward.meta import (
  Judge,
  OuterBatch,
  PairBatch,
  QValues,
  RatingBatch,
  judge_scores,
  outer_gradient,
  outer_gradient_autodiff,
)
from rlfb_jax.reward.meta_options import MetaOptions
from rlfb_jax.reward.model import (
  RewardModel,
  RewardModelState,
  aggregate,
  make_optimiser,
  map_members,
)
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.passes import is_finite
from rlfb_jax.reward.preferences import PreferenceLossOptions
from rlfb_jax.reward.sources import class_weights, segment_rewards

Combine = Callable[[jax.Array], jax.Array]


class MetaState(flax.struct.PyTreeNode):
  """What bi-level steps remember.

  Attributes:
    opt_state: of the outer optimiser, leaves [K, ...]; empty where the Adam of the
      supervised fit is shared.
    num_steps: bi-level steps taken, [] int32.
  """

  opt_state: Any
  num_steps: jax.Array


class MetaStep(NamedTuple):
  """Pure functions of the bi-level step.

  Attributes:
    init: `RewardModelState -> MetaState`.
    step: `(key, meta, reward, critic, obs, action, continuation, ratings, pairs,
      combine=None) -> (meta, reward, metrics)`; see `make_meta_step`.
  """

  init: Callable[[RewardModelState], MetaState]
  step: Callable[..., tuple[MetaState, RewardModelState, Metrics]]


def pick_labels(
  key: Key, usable: jax.Array, size: int, how: str
) -> tuple[jax.Array, jax.Array]:
  """Rows of a store for the outer loss, and which of them are real.

  Args:
    key: randomness, consumed; unused for 'last'.
    usable: rows that hold an answer, in order of arrival, [C] bool.
    size: M; the capacity where that is smaller.
    how: 'last', or 'sample' (uniform, without replacement).

  Returns:
    Index [M] int32 and mask [M] bool; padding repeats the first row picked.
  """
  capacity = usable.shape[0]
  if how == 'last':
    rank = jnp.arange(capacity - 1, -1, -1, dtype=jnp.float32)
  else:
    rank = jax.random.uniform(key, (capacity,))
  order = jnp.argsort(jnp.where(usable, rank, jnp.inf)).astype(jnp.int32)
  index = order[: min(size, capacity)]
  mask = usable[index]
  return jnp.where(mask, index, order[0]), mask


def _gather(clip: Any, index: jax.Array) -> Segments:
  return Segments(clip.obs[index], clip.action[index])


def supervised_gradient(
  options: RewardOptions, judge: Judge, state: RewardModelState, batch: OuterBatch
) -> MLP:
  """Gradient that the supervised fit would take on these labels, leaves [K, ...]."""

  def member(params: MLP) -> MLP:
    def returns(params: MLP, segment: Segments) -> jax.Array:
      rewards = segment_rewards(
        options, params, state.obs_mean, state.obs_std, segment.obs, segment.action
      )
      return jnp.sum(rewards, axis=-1)

    def loss(params: MLP) -> jax.Array:
      scores = []
      if batch.pairs is not None:
        scores += [returns(params, batch.pairs.first)]
        scores += [returns(params, batch.pairs.second)]
      if batch.ratings is not None:
        scores += [returns(params, batch.ratings.segment)]
      return judge_scores(judge, jnp.concatenate(scores), batch)[0]

    return jax.grad(loss)(params)

  return map_members(member, state.params)


def _own_optimiser(options: MetaOptions) -> optax.GradientTransformation:
  if options.optimiser == 'own_adam':
    return optax.adam(options.learning_rate, eps=options.adam_epsilon)
  return optax.sgd(options.learning_rate)


def init_meta(options: MetaOptions, state: RewardModelState) -> MetaState:
  """What the outer step carries beside the ensemble, before the first.

  Args:
    options: of the step.
    state: of the ensemble.
  """
  own = ()
  if options.optimiser != 'shared_adam':
    own = jax.vmap(_own_optimiser(options).init)(state.params)
  return MetaState(opt_state=own, num_steps=jnp.zeros((), jnp.int32))


def make_meta_step(
  options: MetaOptions,
  reward_options: RewardOptions,
  model: RewardModel,
  q_values: QValues,
  critic_learning_rate: float,
  *,
  session_labels: int,
  session_ratings: int | None = None,
  margin: int = 0,
  num_classes: Count | None = None,
  pairs: PreferenceLossOptions | None = None,
) -> MetaStep:
  """Binds the options; ratings, pairs or both may guide the outer step.

  `step` takes, beside the states: `critic`, the online critics; `obs` [B, ds],
  `action` [B, da] and `continuation` [B], what the critics' targets hold beside the
  learned reward, of one replay batch; the two stores, None where a kind is not used;
  and `combine`, what the agent is paid from the members' rewards [K, B] (default: the
  ensemble's aggregation). It updates the ensemble and leaves the critics alone: the
  caller pays anew and takes their real step on the same batch.

  A member whose gradient is not finite keeps its parameters and moments. Without a
  label, nothing changes. Metrics, all []: `meta_loss`, `meta_accuracy` (share of the
  labels that the stepped critics' scores agree with, mean over kinds that have some),
  `meta_gradient_norm`, `supervised_gradient_norm` (same labels, the losses of the
  fit), both over all members, `meta_labels` and `meta_non_finite` (members).

  Args:
    options: of the step.
    reward_options: of the ensemble, with its supervised step size.
    model: of the ensemble.
    q_values: `(critic_params, obs, action) -> [C, B]`.
    critic_learning_rate: step size of the inner step.
    session_labels: labels in a session, for `outer_batch_size=0`.
    session_ratings: the same for ratings, where it is another number.
    margin: steps stored on each side of a pair's segments that nobody judged (SURF);
      they are left out.
    num_classes: rating classes, where there are ratings.
    pairs: how pairs become targets, where there are pairs.
  """
  if num_classes is None and pairs is None:
    raise ValueError(
      'A bi-level step needs labels; give num_classes for ratings, '
      'pairs=PreferenceLossOptions() for preferences, or both.'
    )
  size = options.outer_batch_size or session_labels
  rated_size = options.outer_batch_size or session_ratings or session_labels
  if size < 1:
    raise ValueError(
      f'outer_batch_size={options.outer_batch_size} with '
      f'session_labels={session_labels} leaves no label for the outer loss; try 10.'
    )
  judge = Judge(reward_options, num_classes or 2, pairs or PreferenceLossOptions())
  shared = options.optimiser == 'shared_adam'
  optimiser = make_optimiser(reward_options) if shared else _own_optimiser(options)
  gradient_of = outer_gradient if options.closed_form else outer_gradient_autodiff

  def judged(segments: Segments) -> Segments:
    return middle(segments, segments.obs.shape[1] - 2 * margin)

  def labels_of(
    key: Key, ratings: RatingStore | None, preferences: PreferenceStore | None
  ) -> OuterBatch:
    if (ratings is None) != (num_classes is None) or (preferences is None) != (
      pairs is None
    ):
      raise ValueError(
        f'This bi-level step was made for ratings={num_classes is not None} and '
        f'pairs={pairs is not None}, but was given ratings={ratings is not None} and '
        f'pairs={preferences is not None}; a store that is not used must be None.'
      )
    rating_key, pair_key = jax.random.split(key)
    rated = compared = None
    if ratings is not None:
      index, mask = pick_labels(
        rating_key, usable_labels(ratings), rated_size, options.outer_batch
      )
      rated = RatingBatch(
        _gather(ratings.clip, index),
        ratings.rating[index],
        mask,
        class_weights(reward_options, judge.num_classes, ratings),
      )
    if preferences is not None:
      index, mask = pick_labels(
        pair_key, usable_labels(preferences), size, options.outer_batch
      )
      compared = PairBatch(
        judged(_gather(preferences.first, index)),
        judged(_gather(preferences.second, index)),
        preferences.label[index],
        mask,
      )
    return OuterBatch(compared, rated)

  def aggregated(members: jax.Array) -> jax.Array:
    how, weight = reward_options.aggregation, reward_options.aggregation_weight
    return aggregate(members, how, weight)

  def step(
    key: Key,
    meta: MetaState,
    reward: RewardModelState,
    critic: Params,
    obs: jax.Array,
    action: jax.Array,
    continuation: jax.Array,
    ratings: RatingStore | None,
    preferences: PreferenceStore | None,
    combine: Combine | None = None,
  ) -> tuple[MetaState, RewardModelState, Metrics]:
    batch = labels_of(key, ratings, preferences)

    def rewards(params: MLP) -> jax.Array:
      members = model.r_hat_members(reward.replace(params=params), obs, action)
      return (combine or aggregated)(members)

    outer = gradient_of(
      q_values,
      critic,
      obs,
      action,
      rewards,
      reward.params,
      jax.lax.stop_gradient(continuation),
      judge,
      batch,
      learning_rate=critic_learning_rate,
      weight=options.outer_weight,
    )
    metrics = {
      'meta_loss': outer.loss,
      'meta_accuracy': outer.accuracy,
      'meta_gradient_norm': optax.tree.norm(outer.gradient),
    }
    if options.measure_supervised:
      supervised = supervised_gradient(reward_options, judge, reward, batch)
      metrics['supervised_gradient_norm'] = optax.tree.norm(supervised)
    gradient = outer.gradient
    if options.zero_gradient:
      gradient = jax.tree.map(jnp.zeros_like, gradient)
    opt_state = reward.opt_state if shared else meta.opt_state
    updates, new_opt_state = jax.vmap(optimiser.update)(
      gradient, opt_state, reward.params
    )
    new_params = optax.apply_updates(reward.params, updates)
    masks = [labels.mask for labels in batch if labels is not None]
    num_labels = jnp.sum(jnp.concatenate(masks), dtype=jnp.int32)
    finite = jax.vmap(is_finite)(outer.gradient)
    take = finite & (num_labels > 0)
    params, opt_state = select_rows(
      take, (new_params, new_opt_state), (reward.params, opt_state)
    )
    reward = reward.replace(params=params, num_updates=reward.num_updates + take)
    if shared:
      reward = reward.replace(opt_state=opt_state)
    else:
      meta = meta.replace(opt_state=opt_state)
    metrics['meta_labels'] = num_labels
    metrics['meta_non_finite'] = jnp.sum(~finite, dtype=jnp.int32)
    return meta.replace(num_steps=meta.num_steps + 1), reward, metrics

  return MetaStep(functools.partial(init_meta, options), step)
