"""Critics of actions: C networks that share nothing, leaves [C, ...]."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from rlfb_jax.core.networks import MLP, Layer, apply_mlp, orthogonal_mlp
from rlfb_jax.core.types import Activation, Key

Apply = Callable[[MLP, jax.Array, Activation], jax.Array]


def init_critics(
  key: Key,
  num_critics: int,
  observation_size: int,
  action_size: int,
  hidden: Sequence[int],
  last_gain: float,
) -> MLP:
  """Orthogonal weights, zero biases; leaves [C, ...]."""
  sizes = [observation_size + action_size, *hidden, 1]
  keys = jax.random.split(key, num_critics)
  return jax.vmap(lambda k: orthogonal_mlp(k, sizes, 1.0, last_gain))(keys)


def q_values(params: MLP, obs: jax.Array, action: jax.Array) -> jax.Array:
  """Each critic's value of each pair.

  The critics run one after the other: on CPU one product over [C, ...] leaves the
  fast kernels, on accelerators each product fills the device anyway.

  Args:
    params: leaves [C, ...].
    obs: [..., ds].
    action: [..., da].

  Returns:
    [C, ...].
  """
  return _values(_unstacked(params), obs, action, apply_mlp)


def q_values_any_mode(params: MLP, obs: jax.Array, action: jax.Array) -> jax.Array:
  """As `q_values`, for `jax.jvp` too: bi-level methods push tangents forward."""
  return _values(_slices(params), obs, action, apply_plain)


def apply_plain(params: MLP, inputs: jax.Array, activation: Activation) -> jax.Array:
  """`apply_mlp` by products that are differentiable in both modes."""
  hidden = inputs
  for layer in params[:-1]:
    hidden = activation(_affine(layer, hidden))
  return _affine(params[-1], hidden)


def _values(
  members: tuple[MLP, ...], obs: jax.Array, action: jax.Array, apply: Apply
) -> jax.Array:
  inputs = jnp.concatenate([obs, action], axis=-1)
  return jnp.stack([apply(m, inputs, jax.nn.relu)[..., 0] for m in members])


def _slices(params: MLP) -> tuple[MLP, ...]:
  """One network for each critic."""
  num_critics = params[0].bias.shape[0]
  return tuple(jax.tree.map(lambda x, c=c: x[c], params) for c in range(num_critics))


@jax.custom_vjp
def _unstacked(params: MLP) -> tuple[MLP, ...]:
  """As `_slices`; its gradient stacks, where a slice's own pads with zeros and adds."""
  return _slices(params)


def _unstacked_forward(params: MLP) -> tuple[tuple[MLP, ...], None]:
  return _slices(params), None


def _unstacked_backward(_: None, grads: tuple[MLP, ...]) -> tuple[MLP]:
  return (jax.tree.map(lambda *member: jnp.stack(member), *grads),)


_unstacked.defvjp(_unstacked_forward, _unstacked_backward)


def _affine(layer: Layer, inputs: jax.Array) -> jax.Array:
  return inputs @ layer.kernel + layer.bias
