"""Scripted teachers that compare segments by their true return (B-Pref)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.core.config import Options, is_traced, option
from rlfb_jax.core.types import Key
from rlfb_jax.feedback.scripted import beneath_notice, myopic_return


@dataclasses.dataclass(frozen=True)
class TeacherOptions(Options):
  """Who compares, and how well. The defaults are the oracle (Lee et al. 2021)."""

  beta: float = option(
    -1.0,
    'Rationality: P(second better) = sigmoid(beta (G1 - G0)); at 0 and below the '
    'larger return always wins.',
    low=-1.0,
    sweep=True,
    apart=lambda v: v <= 0,
  )
  gamma: float = option(
    1.0,
    'Myopia: the reward j steps before the end of the segment weighs gamma^j.',
    above=0.0,
    high=1.0,
    sweep=True,
    apart=lambda v: v == 1,
  )
  mistake: float = option(
    0.0,
    'Probability that an answer is turned round.',
    low=0.0,
    high=1.0,
    sweep=True,
    apart=lambda v: v == 0,
  )
  skip: float = option(
    0.0,
    'eps_skip: pairs of which neither return exceeds this fraction of the average '
    'segment of recent episodes get no answer.',
    low=0.0,
    sweep=True,
    apart=lambda v: v == 0,
  )
  equal: float = option(
    0.0,
    'eps_equal: returns that differ by less than this fraction of the average '
    'segment of recent episodes are equal.',
    low=0.0,
    sweep=True,
    apart=lambda v: v == 0,
  )
  square_thresholds: bool = option(
    False,
    'Parity: square eps_skip and eps_equal after the first session, as the public '
    'code of PEBBLE does, which multiplies by them twice.',
  )


class PreferenceAnswers(NamedTuple):
  """Answers to B pairs.

  Attributes:
    label: probability that the second segment is better: 0, 1, or 0.5 for equal,
      [B] float32; meaningless where skipped.
    skipped: the teacher gave no answer, [B] bool.
    returns: true undiscounted returns of both segments, [B, 2] float32.
  """

  label: jax.Array
  skipped: jax.Array
  returns: jax.Array


def prefer(
  key: Key,
  first_rewards: jax.Array,
  second_rewards: jax.Array,
  options: TeacherOptions,
  mean_segment_return: float | jax.Array = 0.0,
  first_session: bool | jax.Array = True,
) -> PreferenceAnswers:
  """Compares segments by their true rewards.

  Order, as in B-Pref's `get_label`: skip and equal by the plain returns, myopia,
  rationality, mistake; equal overrides what came of the others. A tie of the seen
  returns goes to the first.

  Args:
    key: randomness, consumed; the oracle ignores it.
    first_rewards: true rewards of the first segments, [B, H].
    second_rewards: of the second ones, [B, H].
    options: who compares.
    mean_segment_return: true return of recent episodes times H over their length,
      []: the scale of `options.skip` and `options.equal`.
    first_session: whether nobody was asked before, []; matters to
      `options.square_thresholds` only.

  Raises:
    ValueError: at trace time, if the two sides have different shapes.
  """
  if first_rewards.shape != second_rewards.shape:
    raise ValueError(
      f'The rewards of the two sides must have one shape [B, H], got '
      f'{first_rewards.shape} and {second_rewards.shape}.'
    )
  choice_key, mistake_key = jax.random.split(key)

  def threshold(epsilon: float) -> jax.Array:
    if options.square_thresholds:
      factor = jnp.where(first_session, epsilon, epsilon**2)
    else:
      factor = jnp.float32(epsilon)
    return factor * mean_segment_return

  returns = jnp.sum(jnp.stack([first_rewards, second_rewards], axis=1), axis=-1)
  skipped = jnp.zeros(returns.shape[:1], bool)
  if is_traced(options.skip) or options.skip > 0:
    skipped = beneath_notice(jnp.max(returns, axis=-1), threshold(options.skip))

  gain = myopic_return(second_rewards, options.gamma) - myopic_return(
    first_rewards, options.gamma
  )
  if is_traced(options.beta) or options.beta > 0:
    better = jax.random.bernoulli(choice_key, jax.nn.sigmoid(options.beta * gain))
  else:
    better = gain > 0
  if is_traced(options.mistake) or options.mistake > 0:
    better ^= jax.random.bernoulli(mistake_key, options.mistake, better.shape)
  label = better.astype(jnp.float32)
  if is_traced(options.equal) or options.equal > 0:
    gap = jnp.abs(returns[:, 1] - returns[:, 0])
    label = jnp.where(gap < threshold(options.equal), 0.5, label)
  return PreferenceAnswers(label, skipped, returns)
