"""What is remembered about the rating classes between two labelling sessions."""

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.core.padding import Count, capacity
from rlfb_jax.repulsion.features import Whitening, identity_whitening
from rlfb_jax.repulsion.gaussian import Gaussian
from rlfb_jax.repulsion.options import RepulsionOptions


class ClassSamples(flax.struct.PyTreeNode):
  """Steps drawn from each class, for modes that visit the states of a class.

  Attributes:
    obs: raw observations, [R, M, ds].
    action: executed actions, [R, M, da].
  """

  obs: jax.Array
  action: jax.Array


class ConditionalHeads(flax.struct.PyTreeNode):
  """Ridge-linear law of the unsquashed action given the whitened state, per class.

  Attributes:
    gain: [R, da, ds].
    offset: [R, da].
    log_std: residual, [R, da], floored.
  """

  gain: jax.Array
  offset: jax.Array
  log_std: jax.Array


class ClassStatistics(flax.struct.PyTreeNode):
  """What is known about the rating classes, with R = n + 1 rows.

  Row i < n is rating class i; row n pools all classes that repel. Where runs with other
  numbers of classes share the program, n is the largest of them; the mask of a class
  that a run does not have stays closed, for nothing is rated so.

  Attributes:
    whitening: frozen feature scales.
    gaussian: laws of `[s~; a~]`, [R, d] and [R, d, d]; standard normal where the
      mask is closed.
    num_segments: rated segments, [R] int32.
    num_rows: rows behind each Gaussian, [R] int32.
    mask: enough segments and a finite factor, [R] bool.
    gate: whether the class may repel now; open unless `below_median`, [R] bool.
    samples: only where states of the classes are visited, else None.
    heads: only for `heads_gaussian`, else None.
  """

  whitening: Whitening
  gaussian: Gaussian
  num_segments: jax.Array
  num_rows: jax.Array
  mask: jax.Array
  gate: jax.Array
  samples: ClassSamples | None = None
  heads: ConditionalHeads | None = None


def needs_samples(options: RepulsionOptions) -> bool:
  """Whether states of the classes are visited."""
  by_class = options.kl_mode == 'heads_gaussian' and options.head_states == 'class'
  return by_class or options.kl_mode == 'heads_unlikelihood'


def empty(
  options: RepulsionOptions, num_classes: Count, observation_size: int, action_size: int
) -> ClassStatistics:
  """Statistics before the first ratings: right shapes, all masks closed."""
  rows, d = capacity(num_classes) + 1, observation_size + action_size
  samples = heads = None
  if needs_samples(options):
    samples = ClassSamples(
      obs=jnp.zeros((rows, options.kl_batch, observation_size)),
      action=jnp.zeros((rows, options.kl_batch, action_size)),
    )
  if options.kl_mode == 'heads_gaussian':
    heads = ConditionalHeads(
      gain=jnp.zeros((rows, action_size, observation_size)),
      offset=jnp.zeros((rows, action_size)),
      log_std=jnp.zeros((rows, action_size)),
    )
  return ClassStatistics(
    whitening=identity_whitening(observation_size, action_size),
    gaussian=Gaussian(
      mean=jnp.zeros((rows, d)),
      chol=jnp.broadcast_to(jnp.eye(d), (rows, d, d)),
    ),
    num_segments=jnp.zeros(rows, jnp.int32),
    num_rows=jnp.zeros(rows, jnp.int32),
    mask=jnp.zeros(rows, bool),
    gate=jnp.ones(rows, bool),
    samples=samples,
    heads=heads,
  )


def usable_rows(stats: ClassStatistics, rows: jax.Array) -> tuple[Gaussian, jax.Array]:
  """The Gaussians of the given rows, harmless where they cannot be used.

  Unusable ones become standard normal *before* anything is computed from them: a
  NaN that is only masked afterwards would come back through the gradient.

  Args:
    stats: of the classes.
    rows: classes asked for, [A] int.

  Returns:
    Gaussians [A] and which of them are meant, [A] bool: unmasked and finite.
  """
  mean, chol = stats.gaussian.mean[rows], stats.gaussian.chol[rows]
  usable = stats.mask[rows]
  usable &= jnp.all(jnp.isfinite(mean), axis=1) & jnp.all(jnp.isfinite(chol), (1, 2))
  eye = jnp.eye(mean.shape[-1], dtype=mean.dtype)
  safe = Gaussian(
    jnp.where(usable[:, None], mean, 0), jnp.where(usable[:, None, None], chol, eye)
  )
  return safe, usable
