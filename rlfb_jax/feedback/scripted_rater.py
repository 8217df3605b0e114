"""A scripted teacher that rates segments by their true return."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.core.config import Options, is_traced, option
from rlfb_jax.core.padding import Count, capacity, fill, number
from rlfb_jax.core.types import Key
from rlfb_jax.feedback.scripted import beneath_notice, myopic_return


@dataclasses.dataclass(frozen=True)
class RaterOptions(Options):
  """Who rates, and how well. The defaults are the perfect rater of the papers.

  The imperfections carry B-Pref's (Lee et al. 2021) over from pairs to ratings.
  """

  num_classes: int = option(
    4, 'Rating classes n, from 0 (worst) to n-1.', low=2, sweep=True, padded=True
  )
  max_return: float = option(
    0.0,
    'G_max, the segment return that fills the rating scale; 0 takes the value of '
    'the task.',
    low=0.0,
    sweep=True,
    apart=lambda v: v == 0,
  )
  mistake: float = option(
    0.0,
    'Probability that a rating is replaced by a wrong one.',
    low=0.0,
    high=1.0,
    sweep=True,
    apart=lambda v: v == 0,
  )
  mistake_kind: str = option(
    'neighbour',
    'A wrong rating is one class off (at the ends of the scale, inwards), or any '
    'other class alike.',
    choices=('neighbour', 'uniform'),
  )
  return_noise: float = option(
    0.0,
    'Std of Gaussian noise on the return that the rater perceives, as a fraction '
    'of G_max.',
    low=0.0,
    sweep=True,
    apart=lambda v: v == 0,
  )
  skip: float = option(
    0.0,
    'eps_skip: segments whose return is at most this fraction of the average '
    'segment of recent episodes get no answer.',
    low=0.0,
    sweep=True,
    apart=lambda v: v == 0,
  )
  gamma: float = option(
    1.0,
    'Myopia: the reward j steps before the end of the segment weighs gamma^j, over the '
    'mean of these weights.',
    above=0.0,
    high=1.0,
    sweep=True,
    apart=lambda v: v == 1,
  )


class RatingAnswers(NamedTuple):
  """Answers to B segments; leaves [B].

  Attributes:
    rating: class 0..n-1, int32; meaningless where skipped.
    skipped: the rater gave no answer, bool.
    segment_return: true undiscounted return, float32.
  """

  rating: jax.Array
  skipped: jax.Array
  segment_return: jax.Array


def bin_return(
  segment_return: jax.Array, max_return: float | jax.Array, num_classes: Count
) -> jax.Array:
  """min(n-1, floor(n G / G_max)), and 0 below 0: equal bins of [0, G_max].

  Counts the thresholds i G_max / n that G reaches, compared as n G >= i G_max: both
  sides are one rounding away from numbers that are equal at a threshold, so an exact
  threshold is in the upper class in float32 too. A division could be compiled into
  a product with a rounded reciprocal. (The public code leaves gaps of 1e-4 above its
  thresholds, in which a segment is rated 0.)

  Args:
    segment_return: G, [B].
    max_return: G_max > 0.
    num_classes: n.

  Returns:
    [B] int32.
  """
  steps = jnp.arange(1, capacity(num_classes), dtype=jnp.float32)
  reached = number(num_classes) * segment_return[:, None] >= steps * max_return
  reached = fill(num_classes - 1, reached, False)
  return jnp.sum(reached, axis=-1, dtype=jnp.int32)


def _wrong_rating(
  key: Key, rating: jax.Array, num_classes: int | jax.Array, kind: str
) -> jax.Array:
  if kind == 'uniform':
    shift = jax.random.randint(key, rating.shape, 1, num_classes)
    return (rating + shift) % num_classes
  step = jnp.where(jax.random.bernoulli(key, 0.5, rating.shape), 1, -1)
  step = jnp.where(rating == 0, 1, jnp.where(rating == num_classes - 1, -1, step))
  return rating + step


def rate(
  key: Key,
  env_rewards: jax.Array,
  options: RaterOptions,
  max_return: float | jax.Array,
  mean_segment_return: float | jax.Array = 0.0,
) -> RatingAnswers:
  """Rates segments by their true rewards.

  Order, as in B-Pref: skip by the plain return, myopia, noise, rating, mistake.

  Args:
    key: randomness, consumed; the perfect rater ignores it.
    env_rewards: true rewards, [B, H].
    options: who rates.
    max_return: G_max of the task, > 0; used where `options.max_return` is 0.
    mean_segment_return: true return of recent episodes times H over their length,
      the scale of `options.skip`.
  """
  noise_key, mistake_key, wrong_key = jax.random.split(key, 3)
  if is_traced(options.max_return) or options.max_return > 0:
    max_return = options.max_return
  plain = jnp.sum(env_rewards, axis=-1)
  skipped = jnp.zeros(plain.shape, bool)
  if is_traced(options.skip) or options.skip > 0:
    skipped = beneath_notice(plain, jnp.asarray(options.skip * mean_segment_return))
  # Plain weights would shrink every return, and with it every rating.
  seen = myopic_return(env_rewards, options.gamma, normalise=True)
  if is_traced(options.return_noise) or options.return_noise > 0:
    noise = jax.random.normal(noise_key, seen.shape)
    seen = seen + options.return_noise * max_return * noise
  rating = bin_return(seen, max_return, options.num_classes)
  if is_traced(options.mistake) or options.mistake > 0:
    wrong = _wrong_rating(
      wrong_key, rating, number(options.num_classes), options.mistake_kind
    )
    slips = jax.random.bernoulli(mistake_key, options.mistake, rating.shape)
    rating = jnp.where(slips, wrong, rating)
  return RatingAnswers(rating, skipped, plain)
