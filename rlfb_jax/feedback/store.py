"""Ratings collected so far, with their clips: a fixed-capacity pytree."""

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.feedback.clips import Clip

SCRIPTED = 0  # Annotator number of the scripted rater; people count from 1.


class RatingStore(flax.struct.PyTreeNode):
  """Labels in order of arrival, filled from the front. C is the capacity.

  Attributes:
    clip: what was shown, leaves [C, H, ...].
    rating: class 0 (worst) to n-1 (best), [C] int32.
    skipped: the teacher would not say, [C] bool.
    annotator: who answered, [C] int32; `SCRIPTED` or a person.
    confidence: in [0, 1], [C] float32.
    env_steps: environment steps of the run when asked, [C] int32.
    asked: queries asked so far, skips and lost ones included, [] int32.
    count: rows filled, [] int32.
  """

  clip: Clip
  rating: jax.Array
  skipped: jax.Array
  annotator: jax.Array
  confidence: jax.Array
  env_steps: jax.Array
  asked: jax.Array
  count: jax.Array


def init_store(
  capacity: int,
  segment_steps: int,
  observation_size: int,
  action_size: int,
  pose_size: int,
) -> RatingStore:
  """An empty store for `capacity` labels on clips of `segment_steps` steps."""
  if capacity < 1 or segment_steps < 1:
    raise ValueError(
      f'A rating store of capacity={capacity} labels on clips of '
      f'segment_steps={segment_steps} steps cannot hold anything; both must be at '
      'least 1.'
    )

  def steps(size: int) -> jax.Array:
    return jnp.zeros((capacity, segment_steps, size), jnp.float32)

  return RatingStore(
    clip=Clip(steps(observation_size), steps(action_size), steps(pose_size)),
    rating=jnp.zeros(capacity, jnp.int32),
    skipped=jnp.zeros(capacity, bool),
    annotator=jnp.zeros(capacity, jnp.int32),
    confidence=jnp.zeros(capacity, jnp.float32),
    env_steps=jnp.zeros(capacity, jnp.int32),
    asked=jnp.zeros((), jnp.int32),
    count=jnp.zeros((), jnp.int32),
  )


def append(
  store: RatingStore,
  clip: Clip,
  rating: jax.Array,
  skipped: jax.Array,
  *,
  env_steps: jax.Array | int,
  annotator: jax.Array | int = SCRIPTED,
  confidence: jax.Array | float = 1.0,
  wanted: jax.Array | int | None = None,
) -> RatingStore:
  """Adds B answers behind the filled rows; those beyond the capacity are lost.

  A clip with a number that is not finite (a simulation that broke) is stored as
  skipped: nothing can be learned from it.

  Args:
    store: what to extend.
    clip: leaves [B, H, ...].
    rating: [B] int32.
    skipped: [B] bool.
    env_steps: environment steps of the run so far, [] or [B].
    annotator: who answered, [] or [B].
    confidence: in [0, 1], [] or [B].
    wanted: how many of the answers the budget pays for, [] int32, traced or not:
      the first so many are added, the others were never asked for. None: all.

  Raises:
    ValueError: at trace time, if the clips do not fit the store.
  """
  for ours, new in zip(jax.tree.leaves(store.clip), jax.tree.leaves(clip), strict=True):
    if ours.shape[1:] != new.shape[1:]:
      raise ValueError(
        f'A clip of shape {new.shape} does not fit a rating store made for '
        f'{("B", *ours.shape[1:])}; clips and store must agree in steps and sizes.'
      )
  size = clip.size
  if rating.shape != (size,) or skipped.shape != (size,):
    raise ValueError(
      f'{size} clips need ratings and skips of shape ({size},), got {rating.shape} '
      f'and {skipped.shape}.'
    )
  capacity = store.rating.shape[0]
  kept = jnp.minimum(size if wanted is None else wanted, size).astype(jnp.int32)
  arrival = jnp.arange(size)
  rows = jnp.where(arrival < kept, store.count + arrival, capacity)

  def put(old: jax.Array, new: jax.Array | float) -> jax.Array:
    new = jnp.broadcast_to(jnp.asarray(new, old.dtype), (size, *old.shape[1:]))
    return old.at[rows].set(new, mode='drop')

  finite = jnp.ones(size, bool)
  for leaf in jax.tree.leaves(clip):
    finite &= jnp.all(jnp.isfinite(leaf), axis=(1, 2))
  shown = jax.tree.map(lambda x: jnp.where(finite[:, None, None], x, 0.0), clip)
  return RatingStore(
    clip=jax.tree.map(put, store.clip, shown),
    rating=put(store.rating, rating),
    skipped=put(store.skipped, skipped | ~finite),
    annotator=put(store.annotator, annotator),
    confidence=put(store.confidence, confidence),
    env_steps=put(store.env_steps, env_steps),
    asked=store.asked + kept,
    count=jnp.minimum(store.count + kept, capacity),
  )


def usable_labels(store: RatingStore) -> jax.Array:
  """Rows that hold an answer, [C] bool."""
  return (jnp.arange(store.rating.shape[0]) < store.count) & ~store.skipped


def class_histogram(store: RatingStore, num_classes: int) -> jax.Array:
  """Usable labels in each class, [n] int32."""
  hits = store.rating[:, None] == jnp.arange(num_classes)
  return jnp.sum(hits & usable_labels(store)[:, None], axis=0, dtype=jnp.int32)
