"""The order in which one pass visits the labels, with fixed shapes."""

import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Key


def uniform_order(key: Key, usable: jax.Array) -> jax.Array:
  """A random order of the usable labels, [C] int32; the others come last."""
  position = jnp.where(usable, jax.random.uniform(key, usable.shape), 2.0)
  return jnp.argsort(position).astype(jnp.int32)


def stratified_order(
  key: Key, usable: jax.Array, ratings: jax.Array, num_classes: int
) -> jax.Array:
  """As `uniform_order`, with every class spread evenly over the pass.

  The j-th of a class's N_i labels, themselves in random order, sits at
  (j + u_i) / N_i of the pass with a random phase u_i, so each minibatch holds its
  share of each class to within one label or two. ERL-VLM's public code reaches the
  same shares by filling minibatches in turn, rare classes first.

  Args:
    key: randomness, consumed.
    usable: [C] bool.
    ratings: [C] int32 in 0..n-1.
    num_classes: n.
  """
  order_key, phase_key = jax.random.split(key)
  order = uniform_order(order_key, usable)
  one_hot = jax.nn.one_hot(ratings, num_classes, dtype=jnp.int32) * usable[:, None]
  ranks_in_order = jnp.cumsum(one_hot[order], axis=0) - 1  # [C, n]
  sorted_ratings = ratings[order]
  rank = jnp.take_along_axis(ranks_in_order, sorted_ratings[:, None], axis=1)[:, 0]
  phase = jax.random.uniform(phase_key, (num_classes,))[sorted_ratings]
  size = jnp.maximum(jnp.sum(one_hot, axis=0), 1)[sorted_ratings]
  position = jnp.where(usable[order], (rank + phase) / size, 2.0)
  return order[jnp.argsort(position)]


def batch_count(
  num_labels: jax.Array, minibatch_size: int, min_ragged: int
) -> jax.Array:
  """Minibatches in one pass, [] int32.

  The ragged last one counts, unless there is a full one before it and it holds
  fewer than `min_ragged` labels.
  """
  full = num_labels // minibatch_size
  ragged = num_labels % minibatch_size
  keep = (ragged > 0) & ((full == 0) | (ragged >= min_ragged))
  return (full + keep).astype(jnp.int32)
