"""Gaussians of the rating classes, refitted whenever ratings arrive.

Everything has a fixed shape, so refitting never compiles anew, and nothing of size
[n, C, H, d] is built: classes are visited one after the other.
"""

import dataclasses

import jax
import jax.numpy as jnp

from rlfb_jax.core import linalg
from rlfb_jax.core.padding import Count, capacity, number
from rlfb_jax.core.types import Key
from rlfb_jax.repulsion.features import features, fit_whitening
from rlfb_jax.repulsion.gaussian import Gaussian, row_moments, shrink
from rlfb_jax.repulsion.heads import fit_heads
from rlfb_jax.repulsion.options import RepulsionOptions
from rlfb_jax.repulsion.records import (
  ClassSamples,
  ClassStatistics,
  needs_samples,
)
from rlfb_jax.repulsion.weights import included_classes


def membership(
  rating: jax.Array, usable: jax.Array, num_classes: Count, num_included: Count
) -> jax.Array:
  """Which clip belongs to which row, [R, C] bool; the last row pools."""
  classes = rating == jnp.arange(capacity(num_classes))[:, None]
  pooled = (rating >= 0) & (rating < number(num_included))
  return jnp.concatenate([classes, pooled[None]]) & usable


def shuffle_ratings(key: Key, rating: jax.Array, usable: jax.Array) -> jax.Array:
  """Permutes the ratings of usable clips among themselves; class counts stay."""
  target = jnp.argsort(~usable, stable=True)
  noise = jax.random.uniform(key, rating.shape)
  source = jnp.argsort(jnp.where(usable, noise, 2.0))
  return rating.at[target].set(rating[source])


def draw_samples(
  key: Key, obs: jax.Array, action: jax.Array, member: jax.Array, num: int
) -> ClassSamples:
  """`num` steps of each row, uniform over its clips and steps, with replacement.

  Rows without clips get arbitrary steps; their mask is closed.
  """

  def one_row(key: Key, in_row: jax.Array) -> ClassSamples:
    clip_key, step_key = jax.random.split(key)
    filled = jnp.cumsum(in_row.astype(jnp.int32))
    rank = jax.random.randint(clip_key, (num,), 0, jnp.maximum(filled[-1], 1))
    clip = jnp.searchsorted(filled, rank, side='right')
    clip = jnp.minimum(clip, in_row.shape[0] - 1)
    step = jax.random.randint(step_key, (num,), 0, obs.shape[1])
    return ClassSamples(obs[clip, step], action[clip, step])

  return jax.vmap(one_row)(jax.random.split(key, member.shape[0]), member)


def fit(
  options: RepulsionOptions,
  num_classes: Count,
  key: Key,
  obs: jax.Array,
  action: jax.Array,
  rating: jax.Array,
  usable: jax.Array,
) -> ClassStatistics:
  """Statistics of all ratings so far.

  Args:
    options: which steps, which classes, how much shrinkage.
    num_classes: n.
    key: for shuffled labels and for samples of classes.
    obs: raw observations of rated clips, [C, H, ds].
    action: executed actions, [C, H, da].
    rating: class of each clip, [C] int.
    usable: filled, not skipped, [C] bool; other slots may hold anything.

  Raises:
    ValueError: at trace time, if the leading axes disagree.
  """
  if obs.shape[:2] != action.shape[:2] or rating.shape != obs.shape[:1]:
    raise ValueError(
      f'obs {obs.shape}, action {action.shape} and rating {rating.shape} must '
      'share their clip and step axes, [C, H, ds], [C, H, da] and [C].'
    )
  shuffle_key, sample_key = jax.random.split(key)
  usable = usable.astype(bool)
  if options.shuffled_labels:
    rating = shuffle_ratings(shuffle_key, rating, usable)
  obs = jnp.where(usable[:, None, None], obs, 0)
  action = jnp.where(usable[:, None, None], action, 0)
  whitening = fit_whitening(obs, action, usable.astype(obs.dtype))
  if options.statistics_steps == 'first_step':
    obs, action = obs[:, :1], action[:, :1]

  included = included_classes(options, num_classes)
  member = membership(rating, usable, num_classes, included)
  num_segments = jnp.sum(member, axis=1, dtype=jnp.int32)

  mean, cov = row_moments(features(whitening, obs, action), member)
  chol = linalg.cholesky(shrink(cov, options.shrinkage, options.jitter))
  mask = num_segments >= options.min_segments
  mask &= jnp.all(jnp.isfinite(chol), axis=(1, 2)) & jnp.all(jnp.isfinite(mean), axis=1)
  gaussian = Gaussian(
    mean=jnp.where(mask[:, None], mean, 0),
    chol=jnp.where(mask[:, None, None], chol, jnp.eye(mean.shape[-1])),
  )

  stats = ClassStatistics(
    whitening=whitening,
    gaussian=gaussian,
    num_segments=num_segments,
    num_rows=num_segments * obs.shape[1],
    mask=mask,
    gate=jnp.ones_like(mask),
  )
  if needs_samples(options):
    samples = draw_samples(sample_key, obs, action, member, options.kl_batch)
    stats = dataclasses.replace(stats, samples=samples)
  if options.kl_mode == 'heads_gaussian':
    stats = dataclasses.replace(
      stats, heads=fit_heads(options, whitening, obs, action, member)
    )
  return stats
