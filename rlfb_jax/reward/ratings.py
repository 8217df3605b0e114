"""From predicted returns to class probabilities and the rating loss.

Rating-based RL (White et al., AAAI 2024) min-max normalises the predicted returns
of a minibatch, places class boundaries so that as many predictions fall into each
class as labels do, and reads class probabilities off the distance to the
boundaries. All functions take one minibatch of one ensemble member; padding is
excluded exactly by `mask`.
"""

import jax
import jax.numpy as jnp

from rlfb_jax.core.extrema import max_of, min_of
from rlfb_jax.core.padding import Count, capacity, fill, number
from rlfb_jax.reward.minibatch_loss import MinibatchLoss

EPSILON = 1e-6  # Added to the spread of the returns (ERL-VLM, public code).
# Of classes that a run does not have. Finite: 0 * inf would be in the loss.
NO_CLASS = -1e9


def _extremes(returns: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  low = min_of(jnp.where(mask, returns, jnp.inf))
  high = max_of(jnp.where(mask, returns, -jnp.inf))
  some = jnp.any(mask)
  return jnp.where(some, low, 0.0), jnp.where(some, high, 0.0)


def normalise_returns(returns: jax.Array, mask: jax.Array) -> jax.Array:
  """Maps predicted returns to [0, 1] by the minibatch's extremes.

  The gradient flows through the two extreme samples too, as in the public code.

  Args:
    returns: sum of predicted rewards per segment, [B].
    mask: real samples, [B] bool.

  Returns:
    [B]; 0 where masked.
  """
  returns = jnp.where(mask, returns, 0.0)  # Before the quotient: 0 * NaN is NaN.
  low, high = _extremes(returns, mask)
  return jnp.where(mask, (returns - low) / (high - low + EPSILON), 0.0)


def class_counts(ratings: jax.Array, mask: jax.Array, num_classes: int) -> jax.Array:
  """Number of labels in each class, [n] int32; ratings [B] int32, mask [B] bool."""
  hits = (ratings[:, None] == jnp.arange(num_classes)) & mask[:, None]
  return jnp.sum(hits, axis=0, dtype=jnp.int32)


def class_boundaries(
  normalised: jax.Array,
  ratings: jax.Array,
  mask: jax.Array,
  num_classes: int,
  kind: str = 'midpoint',
) -> jax.Array:
  """Boundaries between which as many predictions fall as there are labels.

  With C_i labels below class i and the sorted predictions s_1 <= ... <= s_B, the
  boundary tau_i is (s_{C_i} + s_{C_i + 1}) / 2 ('midpoint') or s_{C_i}
  ('order_stat', the public code). C_i = 0 gives 0 and C_i = B gives 1; the public
  code indexes with C_i - 1, which for an empty lowest class wraps round to the
  largest prediction.

  Args:
    normalised: predictions in [0, 1], [B].
    ratings: labels, [B] int32.
    mask: real samples, [B] bool.
    num_classes: n.
    kind: 'midpoint' or 'order_stat'.

  Returns:
    tau_0 = 0 <= ... <= tau_n = 1, [n + 1], without gradient.
  """
  if kind not in ('midpoint', 'order_stat'):
    raise ValueError(f'boundaries={kind} is not one of midpoint, order_stat.')
  size = normalised.shape[0]
  ordered = jnp.sort(jnp.where(mask, jax.lax.stop_gradient(normalised), jnp.inf))
  counts = class_counts(ratings, mask, num_classes)
  total = jnp.sum(counts)
  below = jnp.cumsum(counts)[:-1]  # C_1 ... C_{n-1}
  lower = ordered[jnp.clip(below - 1, 0, size - 1)]
  upper = ordered[jnp.clip(below, 0, size - 1)]
  inner = lower if kind == 'order_stat' else 0.5 * (lower + upper)
  inner = jnp.where(below == 0, 0.0, jnp.where(below == total, 1.0, inner))
  return jnp.concatenate([jnp.zeros(1), inner, jnp.ones(1)])


def class_logits(
  normalised: jax.Array, boundaries: jax.Array, sharpness: float | jax.Array
) -> jax.Array:
  """Logits of the classes in linear form, [B, n].

  The public code's logit -k (R - tau_i)(R - tau_{i+1}) shares -k R^2 among all
  classes; without it, k [(tau_i + tau_{i+1}) R - tau_i tau_{i+1}] gives the same
  probabilities. It is an adjacent-category ordinal model: the most probable class
  changes exactly at the boundaries.
  """
  low, high = boundaries[:-1], boundaries[1:]
  return sharpness * (normalised[:, None] * (low + high) - low * high)


def class_sharpness(
  sharpness: float, mode: str, num_classes: Count
) -> float | jax.Array:
  """Sharpness k for n classes: constant, or 'n2': k (n/2)^2."""
  return sharpness * (number(num_classes) / 2.0) ** 2 if mode == 'n2' else sharpness


def balancing_weights(counts: jax.Array, num_classes: Count) -> jax.Array:
  """Class weights (N - N_i) / N over their minimum, [n] (ERL-VLM, public code).

  All ones while a class is empty, because the weights of the others would mean
  nothing for it.

  Args:
    counts: labels in each class, [n].
    num_classes: n.
  """
  total = jnp.sum(counts).astype(jnp.float32)
  share = (total - counts) / jnp.maximum(total, 1.0)
  weights = share / jnp.maximum(jnp.min(share), EPSILON)
  return jnp.where(jnp.all(fill(num_classes, counts > 0, True)), weights, 1.0)


def rating_loss(
  returns: jax.Array,
  ratings: jax.Array,
  mask: jax.Array,
  weights: jax.Array,
  *,
  num_classes: Count,
  sharpness: float | jax.Array = 30.0,
  boundaries: str = 'midpoint',
  loss: str = 'cross_entropy',
) -> MinibatchLoss:
  """Loss of one member on one minibatch.

  Args:
    returns: sum of predicted rewards per segment, [B].
    ratings: labels in 0..n-1, [B] int32.
    mask: real samples, [B] bool.
    weights: weight of each class, [n]; ones for the plain mean.
    num_classes: n >= 2.
    sharpness: k; see `class_sharpness`.
    boundaries: 'midpoint' or 'order_stat'.
    loss: 'cross_entropy', or 'mae': the L1 distance between the probabilities and
      the label, 2 (1 - p_y) (ERL-VLM).

  Returns:
    The weighted mean over real samples. A minibatch can teach that has at least two
    classes and returns that differ. A sample is correct where its most probable class
    is its label; all real ones are counted.
  """
  normalised = normalise_returns(returns, mask)
  rows = capacity(num_classes)
  tau = class_boundaries(normalised, ratings, mask, rows, boundaries)
  # All boundaries from an empty top class on are 1, and so would the logits of classes
  # beyond it be those of the empty one, which has a probability.
  logits = fill(num_classes, class_logits(normalised, tau, sharpness), NO_CLASS)
  log_p = jax.nn.log_softmax(logits)
  label = jax.nn.one_hot(ratings, rows)
  log_p_label = jnp.sum(log_p * label, axis=-1)
  each = -log_p_label if loss == 'cross_entropy' else 2.0 * (1.0 - jnp.exp(log_p_label))
  weight = jnp.where(mask, label @ weights, 0.0)
  mean = jnp.sum(weight * each) / jnp.maximum(jnp.sum(weight), EPSILON)
  low, high = _extremes(jax.lax.stop_gradient(returns), mask)
  counts = class_counts(ratings, mask, rows)
  usable = (jnp.sum(counts > 0) >= 2) & (high - low >= EPSILON)
  correct = jnp.sum(mask & (jnp.argmax(logits, axis=-1) == ratings), dtype=jnp.float32)
  counted = jnp.sum(mask, dtype=jnp.float32)
  return MinibatchLoss(jnp.where(usable, mean, 0.0), usable, correct, counted)
