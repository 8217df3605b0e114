"""SURF: pseudo-labels on pairs that nobody was asked about, and temporal cropping.

Park et al. 2022; the numbers are those of the public code
(`reward_model_semi_dataaug.py`, `train_PEBBLE_semi_dataaug.py`) for DM Control.
Segments are stored with a margin on each side of what the teacher judges.
"""

import dataclasses

import jax
import jax.numpy as jnp

from rlfb_jax.core.config import Options, option
from rlfb_jax.core.networks import MLP
from rlfb_jax.core.types import Key
from rlfb_jax.feedback.preference_store import PreferenceStore
from rlfb_jax.feedback.unlabelled_store import UnlabelledStore
from rlfb_jax.reward.minibatch_loss import MinibatchLoss
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.passes import Source
from rlfb_jax.reward.preferences import (
  PreferenceLossOptions,
  cross_entropy,
  preference_loss,
)
from rlfb_jax.reward.shuffle import batch_count, uniform_order
from rlfb_jax.reward.sources import gather_pairs, pair_source, segment_rewards


@dataclasses.dataclass(frozen=True)
class SurfOptions(Options):
  """Semi-supervised reward learning; defaults for DM Control."""

  threshold: float = option(
    0.99,
    'Confidence from which a pseudo-label counts (0.999 for cheetah_run).',
    low=0.5,
    below=1.0,
    sweep=True,
  )
  unlabelled_weight: float = option(
    1.0, 'Factor of the pseudo-label loss.', low=0.0, sweep=True
  )
  unlabelled_ratio: int = option(
    4, 'Unlabelled pairs in a gradient step for each labelled one.', low=1
  )
  unlabelled_per_label: int = option(
    100, 'Unlabelled pairs drawn for each label asked (Meta-World: 10).', low=1
  )
  reward_update: int = option(
    1000,
    'A session takes ceil(this * labels / minibatch size) gradient steps '
    '(Meta-World: 20); no early stop.',
    low=1,
    sweep=True,
  )
  margin: int = option(
    5, 'Steps stored on each side of those that the teacher judges.', low=0
  )
  crop: int = option(
    5, 'A crop is up to so many steps shorter or longer than what is judged.', low=0
  )

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.crop > 2 * self.margin:
      raise ValueError(
        f'crop={self.crop} must be at most 2 * margin={2 * self.margin}: a crop lies '
        f'within the stored steps; try {2 * self.margin}.'
      )


def middle_steps(stored_steps: int, margin: int) -> slice:
  """The steps that a teacher judges, of segments stored with a margin each side."""
  if stored_steps <= 2 * margin:
    raise ValueError(
      f'Segments of {stored_steps} stored steps have nothing between margins of '
      f'{margin} on each side; store at least {2 * margin + 1}.'
    )
  return slice(margin, stored_steps - margin)


def crop_masks(
  key: Key, num_pairs: int, stored_steps: int, options: SurfOptions
) -> jax.Array:
  """Random crops: which steps of each segment are summed.

  The length is uniform on H - crop to H + crop and shared by both segments of a pair,
  the starts are uniform and independent.

  Args:
    key: randomness, consumed.
    num_pairs: B.
    stored_steps: H + 2 margin.
    options: margin and crop.

  Returns:
    [B, 2, H + 2 margin] bool.
  """
  middle = middle_steps(stored_steps, options.margin)
  judged = middle.stop - middle.start
  if options.crop >= judged:
    raise ValueError(
      f'crop={options.crop} must be less than the {judged} steps that the teacher '
      f'judges; try {judged - 1}.'
    )
  length_key, start_key = jax.random.split(key)
  length = jax.random.randint(
    length_key, (num_pairs, 1), judged - options.crop, judged + options.crop + 1
  )
  start = jax.random.randint(start_key, (num_pairs, 2), 0, stored_steps - length + 1)
  step = jnp.arange(stored_steps)
  start, length = start[..., None], length[..., None]
  return (step >= start) & (step < start + length)


def pseudo_label_loss(
  judged_margin: jax.Array,
  cropped_margin: jax.Array,
  mask: jax.Array,
  threshold: float,
) -> tuple[jax.Array, jax.Array]:
  """Cross-entropy with one member's own confident predictions.

  Args:
    judged_margin: predicted return of the second segment minus that of the first,
      over the steps that a teacher would judge, [B]; taken without gradient.
    cropped_margin: the same over the crops, [B].
    mask: real pairs, [B] bool.
    threshold: least probability of the more probable answer.

  Returns:
    The mean over all real pairs, unconfident ones counting as zeros, [], and how many
    were confident, [] float32.
  """
  judged_margin = jax.lax.stop_gradient(judged_margin)
  confident = mask & (jax.nn.sigmoid(jnp.abs(judged_margin)) >= threshold)
  target = (judged_margin > 0).astype(cropped_margin.dtype)
  each = cross_entropy(jnp.where(confident, cropped_margin, 0.0), target)
  total = jnp.sum(jnp.where(confident, each, 0.0))
  return total / jnp.maximum(jnp.sum(mask), 1), jnp.sum(confident, dtype=jnp.float32)


def surf_sources(
  options: RewardOptions,
  pairs: PreferenceLossOptions,
  surf: SurfOptions,
  store: PreferenceStore,
  unlabelled: UnlabelledStore,
  obs_mean: jax.Array,
  obs_std: jax.Array,
) -> tuple[Source, Source]:
  """Cropped labelled pairs, and unlabelled ones whose `correct` is the confident."""
  size = options.minibatch_size

  def rewards_of(
    store: PreferenceStore | UnlabelledStore, params: MLP, index: jax.Array
  ) -> jax.Array:
    obs, action = gather_pairs(store, index)
    return segment_rewards(options, params, obs_mean, obs_std, obs, action)

  def cropped(rewards: jax.Array, key: Key) -> jax.Array:
    masks = crop_masks(key, rewards.shape[0], rewards.shape[-1], surf)
    return jnp.sum(jnp.where(masks, rewards, 0.0), axis=-1)

  def labelled_loss(
    params: MLP, index: jax.Array, mask: jax.Array, key: Key
  ) -> MinibatchLoss:
    returns = cropped(rewards_of(store, params, index), key)
    return preference_loss(
      returns,
      store.label[index],
      mask,
      label_margin=pairs.label_margin,
      equal_as_first=pairs.equal_as_first,
    )

  def unlabelled_loss(
    params: MLP, index: jax.Array, mask: jax.Array, key: Key
  ) -> MinibatchLoss:
    rewards = rewards_of(unlabelled, params, index)
    judged = jnp.sum(rewards[..., middle_steps(rewards.shape[-1], surf.margin)], -1)
    returns = cropped(rewards, key)
    loss, confident = pseudo_label_loss(
      judged[:, 1] - judged[:, 0], returns[:, 1] - returns[:, 0], mask, surf.threshold
    )
    seen = jnp.sum(mask, dtype=jnp.float32)
    return MinibatchLoss(loss, jnp.any(mask), confident, seen)

  capacity = unlabelled.first.obs.shape[0]
  held = jnp.arange(capacity) < unlabelled.count
  labelled = pair_source(options, pairs, store, obs_mean, obs_std)
  return labelled._replace(loss=labelled_loss), Source(
    usable=held,
    num_batches=batch_count(unlabelled.count, size * surf.unlabelled_ratio, 0),
    size=size * surf.unlabelled_ratio,
    weight=surf.unlabelled_weight * options.pair_weight,
    graded=False,
    shuffle=lambda key: uniform_order(key, held),
    loss=unlabelled_loss,
  )


def surf_steps(
  options: RewardOptions, surf: SurfOptions, num_labels: jax.Array
) -> jax.Array:
  """Gradient steps in a session, [] int32: ceil(reward_update * labels / 128)."""
  work = surf.reward_update * num_labels
  return ((work + options.minibatch_size - 1) // options.minibatch_size).astype(
    jnp.int32
  )
