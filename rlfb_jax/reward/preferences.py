"""From predicted returns to the loss of a pair: the model of Bradley and Terry.

The probability that the second segment is better is the sigmoid of the difference of
the two sums of r_hat: no temperature, no discount, no division by the length
(Christiano et al. 2017; B-Pref `reward_model.py`). All functions take one minibatch;
padding is excluded exactly by `mask`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from rlfb_jax.core.config import Options, option
from rlfb_jax.reward.minibatch_loss import MinibatchLoss


@dataclasses.dataclass(frozen=True)
class PreferenceLossOptions(Options):
  """How a label on a pair becomes a target."""

  label_margin: float = option(
    0.0,
    'Label smoothing m: the better segment gets probability 1 - m, the other m; '
    'equal pairs get one half each.',
    low=0.0,
    below=0.5,
    sweep=True,
  )
  equal_as_first: bool = option(
    False,
    'Count equal pairs in the accuracy as if the first segment were better, as the '
    'public code does; otherwise they are not counted.',
  )


def cross_entropy(margin: jax.Array, target: jax.Array) -> jax.Array:
  """-(q log p + (1 - q) log(1 - p)) with p = sigmoid(margin), elementwise.

  Args:
    margin: return of the second segment minus that of the first.
    target: q, the probability that the second is better.
  """
  return jax.nn.softplus(margin) - target * margin


def count_correct(
  margin: jax.Array, label: jax.Array, mask: jax.Array, equal_as_first: bool = False
) -> tuple[jax.Array, jax.Array]:
  """How many predictions agree with their label, and how many were compared.

  Args:
    margin: return of the second segment minus that of the first, [B].
    label: probability that the second is better, [B].
    mask: real pairs, [B] bool.
    equal_as_first: see `PreferenceLossOptions`.

  Returns:
    Two float32 scalars.
  """
  counted = mask if equal_as_first else mask & (label != 0.5)
  correct = counted & ((margin > 0) == (label > 0.5))
  return jnp.sum(correct, dtype=jnp.float32), jnp.sum(counted, dtype=jnp.float32)


def preference_loss(
  returns: jax.Array,
  label: jax.Array,
  mask: jax.Array,
  *,
  label_margin: float = 0.0,
  equal_as_first: bool = False,
) -> MinibatchLoss:
  """Bradley-Terry cross-entropy of one member on one minibatch.

  Args:
    returns: sums of r_hat over the first and the second segment, [B, 2].
    label: probability that the second is better, [B] in [0, 1]; 0.5 means equal.
    mask: real pairs, [B] bool.
    label_margin: see `PreferenceLossOptions`.
    equal_as_first: likewise.

  Returns:
    The mean loss over real pairs. A pair is correct where its better segment has the
    larger predicted return; a tie predicts the first.

  Raises:
    ValueError: at trace time, if the shapes disagree.
  """
  size = mask.shape[0]
  if returns.shape != (size, 2) or label.shape != (size,):
    raise ValueError(
      f'{size} pairs need returns [{size}, 2] and labels [{size}], got '
      f'{returns.shape} and {label.shape}.'
    )
  # Before the loss: 0 * NaN is NaN, in the gradient too.
  margin = jnp.where(mask, returns[:, 1] - returns[:, 0], 0.0)
  target = label_margin + (1.0 - 2.0 * label_margin) * label
  each = jnp.where(mask, cross_entropy(margin, target), 0.0)
  correct, counted = count_correct(margin, label, mask, equal_as_first)
  return MinibatchLoss(
    loss=jnp.sum(each) / jnp.maximum(jnp.sum(mask), 1),
    usable=jnp.any(mask),
    correct=correct,
    counted=counted,
  )
