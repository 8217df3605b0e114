"""One labelling session's training of the reward ensemble on ratings.

The public code's recipe (rating-based RL, PEBBLE and PrefPPO alike): up to 100
passes over all labels collected so far, in minibatches that each member shuffles
for itself, until the training accuracy of a pass exceeds 97 %. Capacity, not the
number of labels, sets the shapes, so every session runs the same program; loops
stop at what is filled.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.custom_batching import sequential_vmap

from rlfb_jax.core.networks import MLP
from rlfb_jax.core.types import Key, Metrics
from rlfb_jax.feedback.store import RatingStore, class_histogram, usable_labels
from rlfb_jax.reward.model import (
  RewardModelState,
  ensemble_outputs,
  make_optimiser,
  map_members,
  network_inputs,
)
from rlfb_jax.reward.network import apply_member
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.ratings import (
  balancing_weights,
  class_sharpness,
  rating_loss,
)
from rlfb_jax.reward.shuffle import batch_count, stratified_order, uniform_order

RatingFit = Callable[
  [Key, RewardModelState, RatingStore], tuple[RewardModelState, Metrics]
]


class _Labels(NamedTuple):
  """Inputs [C, H, d], ratings [C], usable [C] bool and class weights [n]."""

  inputs: jax.Array
  ratings: jax.Array
  usable: jax.Array
  weights: jax.Array


class _Tally(NamedTuple):
  """Sums over the minibatches of one member, each [] (or [K] for all members)."""

  loss: jax.Array  # of minibatches that taught something
  correct: jax.Array
  seen: jax.Array  # labels in those minibatches
  batches: jax.Array  # how many minibatches taught something
  skipped: jax.Array  # minibatches with one class or equal returns
  non_finite: jax.Array  # steps refused because a number was not finite


class _Session(NamedTuple):
  params: MLP
  opt_state: Any
  tally: _Tally  # of the last pass, leaves [K]
  totals: tuple[jax.Array, jax.Array, jax.Array]  # batches, skipped, non_finite [K]
  passes: jax.Array
  accuracy: jax.Array
  running: jax.Array


def _zero_tally(shape: tuple[int, ...]) -> _Tally:
  return _Tally(
    *(jnp.zeros(shape, jnp.float32) for _ in range(3)),
    *(jnp.zeros(shape, jnp.int32) for _ in range(3)),
  )


def _where(condition: jax.Array, new: Any, old: Any) -> Any:
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _is_finite(tree: Any) -> jax.Array:
  return jnp.isfinite(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))


def whitening(
  obs: jax.Array, usable: jax.Array, mean: jax.Array, std: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Mean and std of the observations of all steps of usable clips.

  Args:
    obs: raw observations, [C, H, ds].
    usable: [C] bool.
    mean: what to return where no clip is usable, [ds].
    std: likewise, [ds].
  """
  mask = usable[:, None, None]
  count = jnp.sum(usable) * obs.shape[1]
  divisor = jnp.maximum(count, 1).astype(jnp.float32)
  new_mean = jnp.sum(jnp.where(mask, obs, 0.0), axis=(0, 1)) / divisor
  centred = jnp.where(mask, obs - new_mean, 0.0)
  new_std = jnp.sqrt(jnp.sum(jnp.square(centred), axis=(0, 1)) / divisor)
  return _where(count > 0, (new_mean, new_std), (mean, std))


def _member_pass(
  options: RewardOptions,
  num_classes: int,
  labels: _Labels,
  num_batches: jax.Array,
  params: MLP,
  opt_state: Any,
  order: jax.Array,
) -> tuple[MLP, Any, _Tally]:
  """One pass of one member over the labels, in the given order [P]."""
  size = options.minibatch_size
  num_labels = jnp.sum(labels.usable)
  segment_steps, width = labels.inputs.shape[1:]
  optimiser = make_optimiser(options)
  loss_fn = functools.partial(
    rating_loss,
    num_classes=num_classes,
    sharpness=class_sharpness(options.sharpness, options.sharpness_mode, num_classes),
    boundaries=options.boundaries,
    loss=options.loss,
  )

  def step(j: jax.Array, carry: tuple[MLP, Any, _Tally]) -> tuple[MLP, Any, _Tally]:
    params, opt_state, tally = carry
    index = jax.lax.dynamic_slice(order, (j * size,), (size,))
    mask = j * size + jnp.arange(size) < num_labels
    # Padding repeats a real label, so that what it holds is finite.
    index = jnp.where(mask, index, order[0])
    inputs = labels.inputs[index].reshape(size * segment_steps, width)
    ratings = labels.ratings[index]

    def objective(p: MLP) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
      returns = jnp.sum(apply_member(p, inputs).reshape(size, segment_steps), axis=1)
      out = loss_fn(returns, ratings, mask, labels.weights)
      return out.loss, (out.usable, out.correct)

    (loss, (usable, correct)), grads = jax.value_and_grad(objective, has_aux=True)(
      params
    )
    finite = jnp.isfinite(loss) & _is_finite(grads)
    take = usable & finite
    updates, new_opt_state = optimiser.update(grads, opt_state, params)
    new_params = optax.apply_updates(params, updates)
    params, opt_state = _where(take, (new_params, new_opt_state), (params, opt_state))
    seen = jnp.sum(mask, dtype=jnp.float32)
    tally = _Tally(
      loss=tally.loss + jnp.where(take, loss, 0.0),
      correct=tally.correct + jnp.where(take, correct, 0.0),
      seen=tally.seen + jnp.where(take, seen, 0.0),
      batches=tally.batches + take,
      skipped=tally.skipped + (finite & ~usable),
      non_finite=tally.non_finite + ~finite,
    )
    return params, opt_state, tally

  return jax.lax.fori_loop(0, num_batches, step, (params, opt_state, _zero_tally(())))


def _train(
  options: RewardOptions,
  num_classes: int,
  key: Key,
  params: MLP,
  opt_state: Any,
  labels: _Labels,
) -> _Session:
  """Passes until one is accurate enough, or can teach nothing, or all are done."""
  capacity = labels.usable.shape[0]
  size = options.minibatch_size
  padding = -capacity % size
  num_members = options.ensemble_size
  num_batches = batch_count(jnp.sum(labels.usable), size, options.min_ragged)

  def shuffle(k: Key) -> jax.Array:
    if options.stratified:
      order = stratified_order(k, labels.usable, labels.ratings, num_classes)
    else:
      order = uniform_order(k, labels.usable)
    return jnp.pad(order, (0, padding))

  def one_pass(s: _Session) -> _Session:
    keys = jax.random.split(jax.random.fold_in(key, s.passes), num_members)
    member = functools.partial(_member_pass, options, num_classes, labels, num_batches)
    params, opt_state, tally = map_members(
      member, s.params, s.opt_state, jax.vmap(shuffle)(keys)
    )
    taught = tally.seen > 0
    each = tally.correct / jnp.maximum(tally.seen, 1.0)
    accuracy = jnp.sum(each) / jnp.maximum(jnp.sum(taught), 1)
    new = (tally.batches, tally.skipped, tally.non_finite)
    return _Session(
      params=params,
      opt_state=opt_state,
      tally=tally,
      totals=jax.tree.map(jnp.add, s.totals, new),
      passes=s.passes + 1,
      accuracy=accuracy,
      running=jnp.any(taught) & (accuracy <= options.stop_accuracy),
    )

  tally = _zero_tally((num_members,))
  start = _Session(
    params=params,
    opt_state=opt_state,
    tally=tally,
    totals=(tally.batches, tally.skipped, tally.non_finite),
    passes=jnp.zeros((), jnp.int32),
    accuracy=jnp.zeros((), jnp.float32),
    running=num_batches > 0,
  )
  return jax.lax.while_loop(
    lambda s: s.running & (s.passes < options.max_passes), one_pass, start
  )


def _standardisation(params: MLP, labels: _Labels) -> tuple[jax.Array, jax.Array]:
  """Mean and std of each member's output over all labelled steps, [K] each."""
  steps = labels.inputs.shape[1]
  rows = labels.inputs.reshape(-1, labels.inputs.shape[-1])
  mask = jnp.repeat(labels.usable, steps)
  outputs = ensemble_outputs(params, rows)
  divisor = jnp.maximum(jnp.sum(mask), 1).astype(jnp.float32)
  mean = jnp.sum(jnp.where(mask, outputs, 0.0), axis=1) / divisor
  centred = jnp.where(mask, outputs - mean[:, None], 0.0)
  std = jnp.sqrt(jnp.sum(jnp.square(centred), axis=1) / divisor)
  return mean, jnp.where(std > 1e-6, std, 1.0)


def make_rating_fit(options: RewardOptions, num_classes: int) -> RatingFit:
  """Builds `fit(key, state, store) -> (state, metrics)`.

  The fit refreshes the whitening from the store, trains, and (with
  `options.standardise`) rescales the members. A store without usable labels leaves
  the state as it is. A minibatch that cannot teach (one class, or equal returns)
  and a step with a number that is not finite change nothing, Adam's moments
  included, and are counted.

  Metrics, over all members: `reward_loss` (mean of the last pass), `reward_accuracy`
  (last pass), `reward_passes`, `reward_labels`, `reward_skipped` and
  `reward_non_finite` (minibatches in the session), all [], and `class_counts` [n].
  """
  if num_classes < 2:
    raise ValueError(f'num_classes={num_classes} must be at least 2; try 2.')

  def fit(
    key: Key, state: RewardModelState, store: RatingStore
  ) -> tuple[RewardModelState, Metrics]:
    usable = usable_labels(store)
    counts = class_histogram(store, num_classes)
    mean, std = whitening(store.clip.obs, usable, state.obs_mean, state.obs_std)
    ones = jnp.ones(num_classes)
    labels = _Labels(
      inputs=network_inputs(options, mean, std, store.clip.obs, store.clip.action),
      ratings=jnp.clip(store.rating, 0, num_classes - 1),
      usable=usable,
      weights=balancing_weights(counts) if options.class_weights else ones,
    )
    session = _train(options, num_classes, key, state.params, state.opt_state, labels)
    state = dataclasses.replace(
      state,
      params=session.params,
      opt_state=session.opt_state,
      obs_mean=mean,
      obs_std=std,
      num_updates=state.num_updates + session.totals[0],
    )
    if options.standardise:
      shift, scale = _standardisation(session.params, labels)
      state = dataclasses.replace(state, shift=shift, scale=scale)
    tally = session.tally
    metrics = {
      'reward_loss': jnp.sum(tally.loss) / jnp.maximum(jnp.sum(tally.batches), 1),
      'reward_accuracy': session.accuracy,
      'reward_passes': session.passes,
      'reward_labels': jnp.sum(usable, dtype=jnp.int32),
      'reward_skipped': jnp.sum(session.totals[1]),
      'reward_non_finite': jnp.sum(session.totals[2]),
      'class_counts': counts,
    }
    return state, metrics

  sequential = options.seed_batching == 'sequential' or (
    options.seed_batching == 'auto' and jax.default_backend() == 'cpu'
  )
  return sequential_vmap(fit) if sequential else fit
