"""`kl_mode=heads_...`: repulsion state by state, from the action law of each class.

`heads_unlikelihood` lowers the log-likelihood of the actions taken in bad segments;
`heads_gaussian` raises the KL from a linear-Gaussian law of them. By default both visit
the states of the class, which the policy may never reach.
"""

import jax
import jax.numpy as jnp

from rlfb_jax.core import linalg
from rlfb_jax.core.types import Key, Params
from rlfb_jax.repulsion.features import Whitening, whiten_state
from rlfb_jax.repulsion.gaussian import row_moments, shrink
from rlfb_jax.repulsion.options import RepulsionOptions
from rlfb_jax.repulsion.policy import (
  Policy,
  PolicyBatch,
  distribution,
  squashed_log_prob,
  unsquash,
)
from rlfb_jax.repulsion.records import ClassSamples, ClassStatistics, ConditionalHeads

# Saturated actions count as 3.8 before tanh instead of drowning the moments.
HEAD_MARGIN = 1e-3
HEAD_STD_FLOOR = 0.1


def fit_heads(
  options: RepulsionOptions,
  whitening: Whitening,
  obs: jax.Array,
  action: jax.Array,
  member: jax.Array,
) -> ConditionalHeads:
  """Ridge regression of unsquashed actions on whitened states, by class.

  `m_i(s) = mu_a + S_as S_ss^-1 (s - mu_s)` with both moments shrunk, as the joint
  Gaussian is: no slope is steeper than that of least squares. The residual variance is
  that of the data around this line.

  Args:
    options: shrinkage and jitter, the ridge.
    whitening: frozen scales.
    obs: [C, H, ds]; action: [C, H, da]; member: [R, C] bool.
  """
  ds = obs.shape[-1]
  state, raw = whiten_state(whitening, obs), unsquash(action, HEAD_MARGIN)
  mean, cov = row_moments(jnp.concatenate([state, raw], axis=-1), member)
  ss, sa = cov[:, :ds, :ds], cov[:, :ds, ds:]
  ridge = linalg.cholesky(shrink(ss, options.shrinkage, options.jitter))
  eye = jnp.broadcast_to(jnp.eye(ds), ss.shape)
  half = linalg.solve_lower(ridge, jnp.concatenate([eye, sa], axis=-1))
  inverse, projected = half[..., :ds], half[..., ds:]
  shrunk = (1 - options.shrinkage) * linalg.transpose(projected)
  gain = linalg.matmul(shrunk, inverse)
  fitted = linalg.matmul(gain, sa)
  spread = linalg.matmul(linalg.matmul(gain, ss), linalg.transpose(gain))
  variance = jnp.diagonal(cov[:, ds:, ds:] - 2 * fitted + spread, axis1=-2, axis2=-1)
  offset = mean[:, ds:] - linalg.matmul(gain, mean[:, :ds, None])[..., 0]
  ok = jnp.all(jnp.isfinite(gain), axis=(1, 2))[:, None]
  variance = jnp.where(ok, jnp.maximum(variance, HEAD_STD_FLOOR**2), 1)
  return ConditionalHeads(
    gain=jnp.where(ok[..., None], gain, 0),
    offset=jnp.where(ok, offset, 0),
    log_std=jnp.log(variance) / 2,
  )


def _draw(
  options: RepulsionOptions, stats: ClassStatistics, rows: jax.Array, key: Key
) -> ClassSamples:
  """`kl_batch` steps in all, shared equally by the classes asked for, [A, M, ...]."""
  if stats.samples is None:
    raise ValueError('head modes need class samples; fit with the same options.')
  pool = stats.samples.obs.shape[1]
  num = max(options.kl_batch // max(rows.shape[0], 1), 1)
  pick = jax.random.randint(key, (rows.shape[0], num, 1), 0, pool)
  return ClassSamples(
    jnp.take_along_axis(stats.samples.obs[rows], pick, axis=1),
    jnp.take_along_axis(stats.samples.action[rows], pick, axis=1),
  )


def unlikelihood(
  options: RepulsionOptions,
  policy: Policy,
  rows: jax.Array,
  params: Params,
  stats: ClassStatistics,
  batch: PolicyBatch,
  key: Key,
) -> jax.Array:
  """`heads_unlikelihood`: `-E[max(ln pi(a|s), -da ln 2)]`, [A] nats.

  The mean is over the steps of each class. Equals the expected KL(class || policy) up
  to a constant of the class, until the action is no likelier than under the uniform
  law on the box; then the gradient stops. May be negative.
  """
  del batch
  samples = _draw(options, stats, rows, key)
  obs = samples.obs.reshape(-1, samples.obs.shape[-1])
  action = samples.action.reshape(-1, samples.action.shape[-1])
  mean, log_std = distribution(policy, params, obs, options.sigma_grad)
  log_prob = squashed_log_prob(mean, log_std, action)
  floor = -action.shape[-1] * jnp.log(2.0)
  clipped = jnp.where(log_prob > floor, log_prob, floor)
  return -jnp.mean(clipped.reshape(rows.shape[0], -1), axis=-1)


def normal_kl(
  class_mean: jax.Array, class_log_std: jax.Array, mean: jax.Array, log_std: jax.Array
) -> jax.Array:
  """KL(class || policy) of diagonal Normals, summed over the last axis, in nats.

  Invariant under tanh, so it is also the KL of the executed actions.
  """
  ratio = jnp.exp(2 * (class_log_std - log_std))
  shift = ((class_mean - mean) * jnp.exp(-log_std)) ** 2
  return jnp.sum(log_std - class_log_std + (ratio + shift - 1) / 2, axis=-1)


def _usable_heads(
  heads: ConditionalHeads, mask: jax.Array, rows: jax.Array
) -> ConditionalHeads:
  """The rows asked for, zeros where masked: nothing behind a mask may spread."""

  def select(leaf: jax.Array) -> jax.Array:
    open_rows = mask[rows].reshape(-1, *[1] * (leaf.ndim - 1))
    return jnp.where(open_rows, leaf[rows], 0)

  selected: ConditionalHeads = jax.tree.map(select, heads)
  return selected


def conditional_kl(
  options: RepulsionOptions,
  policy: Policy,
  rows: jax.Array,
  params: Params,
  stats: ClassStatistics,
  batch: PolicyBatch,
  key: Key,
) -> jax.Array:
  """`heads_gaussian`: `E_s KL(p_i(.|s) || pi(.|s))`, [A] nats.

  The states are the class's or the policy's, see `RepulsionOptions`.
  """
  if stats.heads is None:
    raise ValueError('heads_gaussian needs class heads; fit with the same options.')
  heads = _usable_heads(stats.heads, stats.mask, rows)
  num = rows.shape[0]
  if options.head_states == 'class':
    obs = _draw(options, stats, rows, key).obs
  else:
    obs = batch.obs[None]
  mean, log_std = distribution(
    policy, params, obs.reshape(-1, obs.shape[-1]), options.sigma_grad
  )
  mean = mean.reshape(*obs.shape[:2], -1)
  log_std = log_std.reshape(mean.shape)
  state = whiten_state(stats.whitening, obs)
  target = linalg.matmul(
    jnp.broadcast_to(state, (num, *state.shape[1:])), linalg.transpose(heads.gain)
  )
  target = target + heads.offset[:, None]
  kl = normal_kl(target, heads.log_std[:, None], mean, log_std)
  return jnp.mean(kl, axis=-1)
