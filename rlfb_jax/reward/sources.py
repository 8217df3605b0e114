"""Ratings and pairs as sources of a labelling session."""

import functools

import jax
import jax.numpy as jnp

from rlfb_jax.core.networks import MLP
from rlfb_jax.core.padding import Count, capacity, number
from rlfb_jax.core.types import Key
from rlfb_jax.feedback.answers import usable_labels
from rlfb_jax.feedback.preference_store import PreferenceStore
from rlfb_jax.feedback.rating_store import RatingStore
from rlfb_jax.feedback.unlabelled_store import UnlabelledStore
from rlfb_jax.reward.minibatch_loss import MinibatchLoss
from rlfb_jax.reward.model import network_inputs
from rlfb_jax.reward.network import apply_member
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.passes import Source
from rlfb_jax.reward.preferences import PreferenceLossOptions, preference_loss
from rlfb_jax.reward.ratings import (
  balancing_weights,
  class_counts,
  class_sharpness,
  rating_loss,
)
from rlfb_jax.reward.shuffle import batch_count, stratified_order, uniform_order


def segment_rewards(
  options: RewardOptions,
  params: MLP,
  obs_mean: jax.Array,
  obs_std: jax.Array,
  obs: jax.Array,
  action: jax.Array,
) -> jax.Array:
  """Rewards that one member gives raw observations [..., ds] and actions: [...]."""
  inputs = network_inputs(options, obs_mean, obs_std, obs, action)
  rows = inputs.reshape(-1, inputs.shape[-1])
  rewards = apply_member(params, rows, options.head)
  return rewards.reshape(inputs.shape[:-1])


def gather_pairs(
  store: PreferenceStore | UnlabelledStore, index: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Observations [B, 2, H, ds] and actions [B, 2, H, da] of pairs `index` [B]."""
  sides = store.first, store.second
  return (
    jnp.stack([side.obs[index] for side in sides], axis=1),
    jnp.stack([side.action[index] for side in sides], axis=1),
  )


def minibatch_rows(options: RewardOptions, usable: jax.Array) -> int:
  """Rows of a minibatch: no more than the store can hold, `usable` [C], to fill it."""
  return min(options.minibatch_size, usable.shape[0])


def class_weights(
  options: RewardOptions, num_classes: Count, store: RatingStore
) -> jax.Array:
  """Weights of the classes in the rating loss, [n]: by their labels, or all 1."""
  rows = capacity(num_classes)
  if not options.class_weights:
    return jnp.ones(rows)
  counts = class_counts(store.rating, usable_labels(store), rows)
  return balancing_weights(counts, num_classes)


def rating_source(
  options: RewardOptions,
  num_classes: Count,
  store: RatingStore,
  obs_mean: jax.Array,
  obs_std: jax.Array,
) -> Source:
  """Ratings with the loss that `options` describe."""
  usable = usable_labels(store)
  rows = capacity(num_classes)
  ratings = jnp.clip(store.rating, 0, number(num_classes) - 1)
  weights = class_weights(options, num_classes, store)
  loss_fn = functools.partial(
    rating_loss,
    num_classes=num_classes,
    sharpness=class_sharpness(options.sharpness, options.sharpness_mode, num_classes),
    boundaries=options.boundaries,
    loss=options.loss,
  )

  def shuffle(key: Key) -> jax.Array:
    if options.stratified:
      return stratified_order(key, usable, ratings, rows)
    return uniform_order(key, usable)

  def loss(params: MLP, index: jax.Array, mask: jax.Array, key: Key) -> MinibatchLoss:
    del key
    clip = store.clip
    rewards = segment_rewards(
      options, params, obs_mean, obs_std, clip.obs[index], clip.action[index]
    )
    return loss_fn(jnp.sum(rewards, axis=1), ratings[index], mask, weights)

  size = minibatch_rows(options, usable)
  return Source(
    usable=usable,
    num_batches=batch_count(jnp.sum(usable), size, options.min_ragged),
    size=size,
    weight=options.rating_weight,
    graded=True,
    shuffle=shuffle,
    loss=loss,
  )


def pair_source(
  options: RewardOptions,
  pairs: PreferenceLossOptions,
  store: PreferenceStore,
  obs_mean: jax.Array,
  obs_std: jax.Array,
) -> Source:
  """Preferences with the Bradley-Terry loss on whole segments.

  A small last minibatch teaches as well as any: no order statistics are at stake.
  """
  usable = usable_labels(store)

  def loss(params: MLP, index: jax.Array, mask: jax.Array, key: Key) -> MinibatchLoss:
    del key
    obs, action = gather_pairs(store, index)
    rewards = segment_rewards(options, params, obs_mean, obs_std, obs, action)
    return preference_loss(
      jnp.sum(rewards, axis=-1),
      store.label[index],
      mask,
      label_margin=pairs.label_margin,
      equal_as_first=pairs.equal_as_first,
    )

  size = minibatch_rows(options, usable)
  return Source(
    usable=usable,
    num_batches=batch_count(jnp.sum(usable), size, 0),
    size=size,
    weight=options.pair_weight,
    graded=True,
    shuffle=lambda key: uniform_order(key, usable),
    loss=loss,
  )
