"""How inputs and outputs of the ensemble are scaled by what has been labelled."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.core.networks import MLP
from rlfb_jax.reward.model import ensemble_outputs, network_inputs
from rlfb_jax.reward.options import RewardOptions


class Labelled(NamedTuple):
  """Segments with labels: obs [C, H, ds], action [C, H, da] and usable [C] bool."""

  obs: jax.Array
  action: jax.Array
  usable: jax.Array


def whitening(
  parts: Sequence[Labelled], mean: jax.Array, std: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Mean and std of the observations of all steps of usable segments.

  Args:
    parts: what was labelled; H may differ between them.
    mean: what to return where no segment is usable, [ds].
    std: likewise, [ds].
  """
  count = sum(jnp.sum(p.usable) * p.obs.shape[1] for p in parts)
  divisor = jnp.maximum(count, 1).astype(jnp.float32)

  def total(centre: jax.Array | float, power: int) -> jax.Array:
    sums = [
      jnp.sum(
        jnp.where(p.usable[:, None, None], (p.obs - centre) ** power, 0.0), axis=(0, 1)
      )
      for p in parts
    ]
    return sum(sums[1:], sums[0])

  new_mean = total(0.0, 1) / divisor
  new_std = jnp.sqrt(total(new_mean, 2) / divisor)
  some = count > 0
  return jnp.where(some, new_mean, mean), jnp.where(some, new_std, std)


def standardisation(
  options: RewardOptions,
  params: MLP,
  parts: Sequence[Labelled],
  obs_mean: jax.Array,
  obs_std: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Mean and std of each member's output over all labelled steps, [K] each."""

  def outputs_of(part: Labelled) -> tuple[jax.Array, jax.Array]:
    rows = network_inputs(options, obs_mean, obs_std, part.obs, part.action)
    outputs = ensemble_outputs(options, params, rows.reshape(-1, rows.shape[-1]))
    return outputs, jnp.repeat(part.usable, part.obs.shape[1])

  both = [outputs_of(part) for part in parts]
  outputs = jnp.concatenate([out for out, _ in both], axis=1)
  mask = jnp.concatenate([mask for _, mask in both])
  divisor = jnp.maximum(jnp.sum(mask), 1).astype(jnp.float32)
  mean = jnp.sum(jnp.where(mask, outputs, 0.0), axis=1) / divisor
  centred = jnp.where(mask, outputs - mean[:, None], 0.0)
  std = jnp.sqrt(jnp.sum(jnp.square(centred), axis=1) / divisor)
  return mean, jnp.where(std > 1e-6, std, 1.0)
