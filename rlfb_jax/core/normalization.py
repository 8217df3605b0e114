"""Running mean and variance of vectors, merged batch by batch."""

import flax.struct
import jax
import jax.numpy as jnp

NORMALIZE_EPSILON = 1e-4  # Added to the deviation by which inputs are divided.


class RunningStatistics(flax.struct.PyTreeNode):
  """Statistics of all vectors seen so far.

  Attributes:
    count: how many, [] float32.
    mean: [d].
    m2: summed squared deviation from the mean, [d].
  """

  count: jax.Array
  mean: jax.Array
  m2: jax.Array

  @property
  def std(self) -> jax.Array:
    """Population standard deviation, [d]; 1 before any data."""
    variance = self.m2 / jnp.maximum(self.count, 1.0)
    return jnp.where(self.count > 0, jnp.sqrt(variance), 1.0)


def init_statistics(size: int) -> RunningStatistics:
  """Statistics of nothing: `normalize` is then the identity up to the clip."""
  return RunningStatistics(
    count=jnp.zeros((), jnp.float32), mean=jnp.zeros(size), m2=jnp.zeros(size)
  )


def update_statistics(stats: RunningStatistics, batch: jax.Array) -> RunningStatistics:
  """Adds the vectors of `batch`, [..., d] (Chan et al. 1979, parallel merge).

  A non-finite vector is left out, so that one broken simulation cannot poison the
  inputs of a whole run.
  """
  rows = batch.reshape(-1, batch.shape[-1])
  finite = jnp.all(jnp.isfinite(rows), axis=-1, keepdims=True)
  rows = jnp.where(finite, rows, 0.0)
  n = jnp.sum(finite.astype(jnp.float32))
  batch_mean = jnp.sum(rows, axis=0) / jnp.maximum(n, 1.0)
  centred = jnp.where(finite, rows - batch_mean, 0.0)
  total = stats.count + n
  delta = batch_mean - stats.mean
  share = n / jnp.maximum(total, 1.0)
  return RunningStatistics(
    count=total,
    mean=stats.mean + delta * share,
    m2=stats.m2
    + jnp.sum(jnp.square(centred), axis=0)
    + jnp.square(delta) * stats.count * share,
  )


def normalize(
  stats: RunningStatistics,
  inputs: jax.Array,
  clip: float,
  epsilon: float = NORMALIZE_EPSILON,
) -> jax.Array:
  """Whitens inputs [..., d] and clips them to [-clip, clip]."""
  scaled = (inputs - stats.mean) / (stats.std + epsilon)
  return jnp.clip(scaled, -clip, clip)
