"""The policy as the repulsion sees it: a Normal squashed by tanh.

A policy is any function `(params, raw observations [B, ds]) -> (mean, log_std)`, the
law of the action before tanh; `log_std` may be [da] or [B, da].
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.core import distributions
from rlfb_jax.core.types import Params

Policy = Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]

# |a| above which an action counts as saturated: tanh's slope is then below 6 %.
SATURATED = 0.97
# Executed actions are pulled this far inside the box before atanh.
BOX_MARGIN = 1e-6


class PolicyBatch(flax.struct.PyTreeNode):
  """States that the policy visits, with what it did there.

  Attributes:
    obs: raw observations, [B, ds].
    raw_action: actions before tanh, [B, da]; only for `kl_mode=ratio`.
    log_prob: log density of the Normal at `raw_action` under the policy that
      acted, without the tanh Jacobian (it cancels in the ratio), [B]; only for
      `kl_mode=ratio`.
  """

  obs: jax.Array
  raw_action: jax.Array | None = None
  log_prob: jax.Array | None = None


def saturated_share(action: jax.Array) -> jax.Array:
  """Share of action entries beyond 0.97, where tanh has lost its slope, [].

  What is not a number counts as beyond.
  """
  return jnp.mean(~(jnp.abs(action) <= SATURATED), dtype=jnp.float32)


def distribution(
  policy: Policy, params: Params, obs: jax.Array, sigma_grad: bool
) -> tuple[jax.Array, jax.Array]:
  """Mean and log-std, both [B, da]; without `sigma_grad` the log-std is constant.

  Raising a forward KL by way of the variance has no bound and is always the
  cheapest way, so that by default only the mean may answer.
  """
  mean, log_std = policy(params, obs)
  log_std = jnp.broadcast_to(log_std, mean.shape)
  return mean, log_std if sigma_grad else jax.lax.stop_gradient(log_std)


def unsquash(action: jax.Array, margin: float = BOX_MARGIN) -> jax.Array:
  """`atanh` of actions pulled inside the box by `margin`."""
  return jnp.arctanh(jnp.clip(action, -1 + margin, 1 - margin))


def squashed_log_prob(
  mean: jax.Array, log_std: jax.Array, action: jax.Array
) -> jax.Array:
  """Log density of the executed action in the box (-1, 1)^da, [B]."""
  raw = unsquash(action)
  return distributions.log_prob(raw, mean, log_std) - distributions.squash_log_det(raw)


def squashed_entropy(
  mean: jax.Array, log_std: jax.Array, noise: jax.Array
) -> jax.Array:
  """Entropy of the executed action in nats, [B]; one noise draw [B, da] a row.

  At most `da ln 2` (uniform on the box); falls with the standard deviation and
  with saturation alike, which the entropy of the Normal alone would not show.
  """
  raw = mean + jnp.exp(log_std) * noise
  return distributions.normal_entropy(log_std) + distributions.squash_log_det(raw)
