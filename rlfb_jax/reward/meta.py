"""The outer gradient of Meta-Reward-Net: what rewards teach the critics to prefer.

A critic that takes one step of gradient descent on learned rewards should score
segments, by the value of their first state and action, as the teacher does. The
derivative of that outer loss by the reward model passes through the step:

  J = sum_c mean_i (Q_c(x_i; theta) - y_i)^2,   y_i = r_i + continuation_i
  theta' = theta - a dJ/dtheta
  dL(theta')/dr_i = (2 a / B) sum_c < dL/dtheta'_c , dQ_c(x_i; theta)/dtheta_c >

(Liu et al. 2022, the proof of its bi-level step; two critics and the outer weight as
in the released `train_MRN.py`). So it costs one VJP of the critics over the batch (the
step itself), one over the few labelled states, one JVP over the batch, and one VJP
of the reward: nothing of second order is built.

`q_values` is `(critic_params, obs [B, ds], action [B, da]) -> [C, B]` throughout, and
`rewards` is `params -> [B]`, what the agent would be paid for the batch.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.core.networks import MLP
from rlfb_jax.core.padding import Count, number
from rlfb_jax.core.types import Params
from rlfb_jax.feedback.clips import Segments
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.passes import mean_where
from rlfb_jax.reward.preferences import PreferenceLossOptions, preference_loss
from rlfb_jax.reward.ratings import class_sharpness, rating_loss

QValues = Callable[[Params, jax.Array, jax.Array], jax.Array]
Rewards = Callable[[MLP], jax.Array]


class PairBatch(NamedTuple):
  """M pairs: segments with leaves [M, H, ...], label [M] and mask [M] bool."""

  first: Segments
  second: Segments
  label: jax.Array
  mask: jax.Array


class RatingBatch(NamedTuple):
  """M rated segments, leaves [M, H, ...], rating [M] int32 and mask [M] bool.

  `weights` [n] are those of the classes in the loss.
  """

  segment: Segments
  rating: jax.Array
  mask: jax.Array
  weights: jax.Array


class OuterBatch(NamedTuple):
  """The labels of one outer step; a kind that nobody gives is None."""

  pairs: PairBatch | None
  ratings: RatingBatch | None


class Verdict(NamedTuple):
  """On the labels of one kind, each [] float32.

  Attributes:
    loss: weighted.
    correct: labels that the scores agree with.
    counted: labels that were compared with them.
  """

  loss: jax.Array
  correct: jax.Array
  counted: jax.Array


class Judge(NamedTuple):
  """The losses of both kinds of label, of scores as of predicted returns.

  Attributes:
    reward: options with the rating loss and the weights of the kinds.
    num_classes: rating classes.
    pairs: how pairs become targets.
  """

  reward: RewardOptions
  num_classes: Count
  pairs: PreferenceLossOptions

  def pair_loss(self, scores: jax.Array, batch: PairBatch) -> Verdict:
    """Of scores [M, 2] of first and second segments."""
    out = preference_loss(
      scores,
      batch.label,
      batch.mask,
      label_margin=self.pairs.label_margin,
      equal_as_first=self.pairs.equal_as_first,
    )
    return Verdict(self.reward.pair_weight * out.loss, out.correct, out.counted)

  def rating_loss(self, scores: jax.Array, batch: RatingBatch) -> Verdict:
    """Of scores [M] of rated segments."""
    options = self.reward
    out = rating_loss(
      scores,
      jnp.clip(batch.rating, 0, number(self.num_classes) - 1),
      batch.mask,
      batch.weights,
      num_classes=self.num_classes,
      sharpness=class_sharpness(
        options.sharpness, options.sharpness_mode, self.num_classes
      ),
      boundaries=options.boundaries,
      loss=options.loss,
    )
    return Verdict(options.rating_weight * out.loss, out.correct, out.counted)

  def __call__(
    self, pair_scores: jax.Array | None, rated_scores: jax.Array | None, b: OuterBatch
  ) -> tuple[jax.Array, jax.Array]:
    """Sum of the losses, and mean accuracy over kinds that have a label to count."""
    both = []
    if b.pairs is not None and pair_scores is not None:
      both.append(self.pair_loss(pair_scores, b.pairs))
    if b.ratings is not None and rated_scores is not None:
      both.append(self.rating_loss(rated_scores, b.ratings))
    loss, correct, counted = (jnp.stack(x) for x in zip(*both, strict=True))
    accuracy = mean_where(correct / jnp.maximum(counted, 1.0), counted > 0)
    return jnp.sum(loss), accuracy


class OuterGradient(NamedTuple):
  """An outer gradient and what was met on the way.

  Attributes:
    gradient: by the ensemble's parameters, leaves [K, ...].
    loss: L, weighted, [].
    accuracy: share of labels that the scores agree with, mean over critics, [].
  """

  gradient: MLP
  loss: jax.Array
  accuracy: jax.Array


def _segments(batch: OuterBatch) -> list[Segments]:
  pairs = [] if batch.pairs is None else [batch.pairs.first, batch.pairs.second]
  return pairs if batch.ratings is None else [*pairs, batch.ratings.segment]


def judge_scores(
  judge: Judge, scores: jax.Array, batch: OuterBatch
) -> tuple[jax.Array, jax.Array]:
  """Loss and accuracy of scores in the order of `_segments`, one a segment, [R]."""
  pair_scores = None
  if batch.pairs is not None:
    size = batch.pairs.label.shape[0]
    pair_scores = scores[: 2 * size].reshape(2, size).T
    scores = scores[2 * size :]
  return judge(pair_scores, scores, batch)


def outer_loss(
  q_values: QValues, critic: Params, judge: Judge, batch: OuterBatch, weight: float
) -> tuple[jax.Array, jax.Array]:
  """Weighted loss, summed over critics, and mean accuracy of their scores.

  A segment's score is the value of its first stored step: Q is the value of all that
  follows, so that later steps would count twice.
  """
  segments = _segments(batch)
  obs = jnp.concatenate([segment.obs[:, 0] for segment in segments])
  action = jnp.concatenate([segment.action[:, 0] for segment in segments])
  scores = q_values(critic, obs, action)
  losses, accuracies = jax.vmap(lambda s: judge_scores(judge, s, batch))(scores)
  return weight * jnp.sum(losses), jnp.mean(accuracies)


def pseudo_update(
  q_values: QValues,
  critic: Params,
  obs: jax.Array,
  action: jax.Array,
  targets: jax.Array,
  learning_rate: float,
) -> Params:
  """One step of gradient descent on the critics' summed mean squared errors.

  Args:
    q_values: see above.
    critic: theta, of the online critics.
    obs: [B, ds].
    action: [B, da].
    targets: y, [B].
    learning_rate: a, that of the critics' Adam.
  """

  def loss(p: Params) -> jax.Array:
    errors = q_values(p, obs, action) - targets
    return jnp.sum(jnp.mean(jnp.square(errors), axis=-1))

  return _descend(critic, jax.grad(loss)(critic), learning_rate)


def _descend(params: Params, gradient: Params, learning_rate: float) -> Params:
  return jax.tree.map(lambda p, g: p - learning_rate * g, params, gradient)


def outer_gradient_autodiff(
  q_values: QValues,
  critic: Params,
  obs: jax.Array,
  action: jax.Array,
  rewards: Rewards,
  params: MLP,
  continuation: jax.Array,
  judge: Judge,
  batch: OuterBatch,
  *,
  learning_rate: float,
  weight: float,
) -> OuterGradient:
  """The outer gradient by differentiating through `pseudo_update`: the definition."""

  def loss(p: MLP) -> tuple[jax.Array, jax.Array]:
    targets = rewards(p) + continuation
    stepped = pseudo_update(q_values, critic, obs, action, targets, learning_rate)
    return outer_loss(q_values, stepped, judge, batch, weight)

  (value, accuracy), gradient = jax.value_and_grad(loss, has_aux=True)(params)
  return OuterGradient(gradient, value, accuracy)


def outer_gradient(
  q_values: QValues,
  critic: Params,
  obs: jax.Array,
  action: jax.Array,
  rewards: Rewards,
  params: MLP,
  continuation: jax.Array,
  judge: Judge,
  batch: OuterBatch,
  *,
  learning_rate: float,
  weight: float,
) -> OuterGradient:
  """The outer gradient in closed form; see the top of this file.

  The JVP of the critics is the transpose of their VJP, so that it shares the forward
  pass with the step and works for functions with a custom VJP alone.

  Args:
    q_values: see above.
    critic: theta, of the online critics.
    obs: the replay batch, [B, ds].
    action: [B, da].
    rewards: what the agent would be paid for it, a function of the ensemble.
    params: of the ensemble.
    continuation: the rest of the targets, stopped: discounted values of what follows,
      masked, and what else the agent is paid, [B].
    judge: the losses of the labels.
    batch: the labels.
    learning_rate: a, of the inner step.
    weight: factor of the outer loss.
  """
  size = obs.shape[0]
  r_hat, pull_rewards = jax.vjp(rewards, params)
  values, pull_critic = jax.vjp(lambda p: q_values(p, obs, action), critic)

  def pull(cotangent: jax.Array) -> Params:
    return pull_critic(cotangent)[0]

  errors = values - (r_hat + continuation)
  stepped = _descend(critic, pull((2.0 / size) * errors), learning_rate)
  loss = functools.partial(
    outer_loss, q_values, judge=judge, batch=batch, weight=weight
  )
  (value, accuracy), direction = jax.value_and_grad(loss, has_aux=True)(stepped)
  slopes: Any = jax.linear_transpose(pull, values)(direction)[0]
  by_reward = (2.0 * learning_rate / size) * jnp.sum(slopes, axis=0)
  return OuterGradient(pull_rewards(by_reward)[0], value, accuracy)
