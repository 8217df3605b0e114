"""Labelling sessions: the ensemble is trained on ratings, on pairs, or on both.

The public codes' recipe (rating-based RL, PEBBLE and PrefPPO alike): passes over all
labels collected so far until the training accuracy of a pass exceeds 97 %. With SURF
the number of steps is fixed and unlabelled pairs take part.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlfb_jax.core.batching import in_turn
from rlfb_jax.core.padding import Count, capacity, fill
from rlfb_jax.core.types import Key, Metrics
from rlfb_jax.feedback.answers import usable_labels
from rlfb_jax.feedback.preference_store import PreferenceStore
from rlfb_jax.feedback.rating_store import RatingStore
from rlfb_jax.feedback.unlabelled_store import UnlabelledStore
from rlfb_jax.reward.model import RewardModelState
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.passes import FitState, Source, mean_where, train
from rlfb_jax.reward.preferences import PreferenceLossOptions
from rlfb_jax.reward.ratings import class_counts
from rlfb_jax.reward.semi_supervised import SurfOptions, surf_sources, surf_steps
from rlfb_jax.reward.sources import pair_source, rating_source
from rlfb_jax.reward.whitening import Labelled, standardisation, whitening

RatingFit = Callable[
  [Key, RewardModelState, RatingStore], tuple[RewardModelState, Metrics]
]
Fit = Callable[
  [
    Key,
    RewardModelState,
    RatingStore | None,
    PreferenceStore | None,
    UnlabelledStore | None,
  ],
  tuple[RewardModelState, Metrics],
]


def _labelled(
  ratings: RatingStore | None, preferences: PreferenceStore | None
) -> list[Labelled]:
  parts = []
  if ratings is not None:
    parts.append(
      Labelled(ratings.clip.obs, ratings.clip.action, usable_labels(ratings))
    )
  if preferences is not None:
    usable = usable_labels(preferences)
    for clip in (preferences.first, preferences.second):
      parts.append(Labelled(clip.obs, clip.action, usable))
  return parts


def _mean_loss(session: FitState, s: int) -> jax.Array:
  """Of source s in the last pass, over minibatches of all members."""
  batches = jnp.sum(session.tally.batches[:, s])
  return jnp.sum(session.tally.loss[:, s]) / jnp.maximum(batches, 1)


def _metrics(sources: dict[str, Source], session: FitState) -> Metrics:
  """What a session did; the names are those of `make_fit`."""
  metrics: Metrics = {}
  names = list(sources)
  total, labels = jnp.zeros(()), jnp.zeros((), jnp.int32)
  accuracies, told = [], []
  for s, (name, source) in enumerate(sources.items()):
    loss = _mean_loss(session, s)
    total += source.weight * loss
    if not source.graded:
      counted = jnp.sum(session.tally.counted[:, s])
      share = jnp.sum(session.tally.correct[:, s]) / jnp.maximum(counted, 1.0)
      metrics |= {f'{name}_loss': loss, 'pseudo_label_share': share}
      continue
    count = jnp.sum(source.usable, dtype=jnp.int32)
    labels += count
    accuracies.append(session.accuracy[s])
    told.append(jnp.any(session.tally.counted[:, s] > 0))
    if names != ['rating']:
      metrics |= {
        f'{name}_loss': loss,
        f'{name}_accuracy': session.accuracy[s],
        f'{name}_labels': count,
      }
  return metrics | {
    'reward_loss': total,
    'reward_accuracy': mean_where(jnp.stack(accuracies), jnp.stack(told)),
    'reward_passes': session.passes,
    'reward_labels': labels,
    'reward_skipped': jnp.sum(session.skipped),
    'reward_non_finite': jnp.sum(session.non_finite),
  }


def make_fit(
  options: RewardOptions,
  num_classes: Count | None = None,
  pairs: PreferenceLossOptions | None = None,
  surf: SurfOptions | None = None,
) -> Fit:
  """Builds `fit(key, state, ratings, preferences, unlabelled) -> (state, metrics)`.

  The fit refreshes the whitening from the stores, trains, and (with
  `options.standardise`) rescales the members. Stores without usable labels leave
  the state as it is. A minibatch that cannot teach (of ratings: one class, or equal
  returns) and a step with a number that is not finite change nothing, Adam's moments
  included, and are counted. Where both kinds of label exist a step descends the
  weighted sum of both losses, a pass walks over the longer store and both kinds must
  be predicted well enough for the session to stop.

  Metrics, over all members: `reward_loss` (weighted sum of the sources' means in the
  last pass), `reward_accuracy` (last pass, mean over kinds of label of which any could
  be told right or wrong, as equal pairs cannot), `reward_passes`, `reward_labels`,
  `reward_skipped` and `reward_non_finite` (minibatches in the session), all []; with
  ratings `class_counts` [n]; with pairs also `preference_loss`, `preference_accuracy`
  and `preference_labels`, with both the same for `rating`; with SURF `unlabelled_loss`
  and `pseudo_label_share`, the share of unlabelled pairs visited that got a
  pseudo-label.

  Args:
    options: of the ensemble and its training.
    num_classes: rating classes, or None where nobody rates.
    pairs: how pairs are learned from, or None where nobody compares.
    surf: learn from unlabelled pairs too, and crop; needs `pairs`.

  Returns:
    The fit. A store whose kind is not learned from is None.
  """
  if num_classes is None and pairs is None:
    raise ValueError(
      'A reward fit needs something to learn from; give num_classes for ratings, '
      'pairs=PreferenceLossOptions() for preferences, or both.'
    )
  if num_classes is not None and capacity(num_classes) < 2:
    raise ValueError(f'num_classes={num_classes} must be at least 2; try 2.')
  if surf is not None and pairs is None:
    raise ValueError('surf learns from pairs; give pairs=PreferenceLossOptions() too.')
  expected = num_classes is not None, pairs is not None, surf is not None

  def fit(
    key: Key,
    state: RewardModelState,
    ratings: RatingStore | None,
    preferences: PreferenceStore | None,
    unlabelled: UnlabelledStore | None,
  ) -> tuple[RewardModelState, Metrics]:
    given = tuple(store is not None for store in (ratings, preferences, unlabelled))
    if given != expected:
      raise ValueError(
        f'This fit was made for (ratings, preferences, unlabelled)={expected} and was '
        f'given {given}; a store that it does not learn from must be None.'
      )
    parts = _labelled(ratings, preferences)
    mean, std = whitening(parts, state.obs_mean, state.obs_std)
    sources: dict[str, Source] = {}
    num_steps = None
    if ratings is not None and num_classes is not None:
      sources['rating'] = rating_source(options, num_classes, ratings, mean, std)
    if preferences is not None and pairs is not None:
      if unlabelled is not None and surf is not None:
        sources['preference'], sources['unlabelled'] = surf_sources(
          options, pairs, surf, preferences, unlabelled, mean, std
        )
        labels = [jnp.sum(s.usable) for s in sources.values() if s.graded]
        num_steps = surf_steps(options, surf, jnp.sum(jnp.stack(labels)))
      else:
        sources['preference'] = pair_source(options, pairs, preferences, mean, std)
    session = train(options, list(sources.values()), key, state, num_steps=num_steps)
    state = dataclasses.replace(
      state,
      params=session.params,
      opt_state=session.opt_state,
      obs_mean=mean,
      obs_std=std,
      num_updates=state.num_updates + session.steps,
    )
    if options.standardise:
      shift, scale = standardisation(options, session.params, parts, mean, std)
      state = dataclasses.replace(state, shift=shift, scale=scale)
    metrics = _metrics(sources, session)
    if ratings is not None and num_classes is not None:
      counts = class_counts(
        ratings.rating, usable_labels(ratings), capacity(num_classes)
      )
      metrics['class_counts'] = fill(num_classes, counts, jnp.nan)
    return state, metrics

  sequential = options.seed_batching == 'sequential' or (
    options.seed_batching == 'auto' and jax.default_backend() == 'cpu'
  )
  return in_turn(fit) if sequential else fit


def make_rating_fit(options: RewardOptions, num_classes: int) -> RatingFit:
  """Builds `fit(key, state, store) -> (state, metrics)` for ratings; see `make_fit`."""
  fit = make_fit(options, num_classes)
  return lambda key, state, store: fit(key, state, store, None, None)
