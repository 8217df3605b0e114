"""Multi-layer perceptrons as plain pytrees.

A network is a tuple of layers, `Layer(kernel, bias)`, so that an ensemble is the
same tuple with one more leading axis, and an export is a list of arrays.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.core.mesh import split_rows
from rlfb_jax.core.types import Activation, Key


class Layer(NamedTuple):
  """An affine map: `kernel` [in, out], `bias` [out]."""

  kernel: jax.Array
  bias: jax.Array


MLP = tuple[Layer, ...]


def orthogonal_mlp(key: Key, sizes: Sequence[int], hidden: float, last: float) -> MLP:
  """Orthogonal weights, zero biases (Stable-Baselines3's PPO, `policies.py`).

  Args:
    key: randomness, consumed.
    sizes: widths from input to output.
    hidden: gain of the hidden layers.
    last: gain of the output layer.
  """
  keys = jax.random.split(key, len(sizes) - 1)
  gains = [hidden] * (len(sizes) - 2) + [last]
  return tuple(
    Layer(gain * orthogonal(k, n, m), jnp.zeros(m))
    for k, gain, n, m in zip(keys, gains, sizes[:-1], sizes[1:], strict=True)
  )


def orthogonal(key: Key, rows: int, columns: int) -> jax.Array:
  """A random matrix with orthonormal rows or columns, whichever are fewer.

  The orthogonal factor of a Gaussian matrix's polar decomposition, whose law is uniform
  (Haar), by Newton and Schulz's iteration: products alone, which every device does
  fast. Written without LAPACK: on two cores a vmapped batch of its QR factorisations
  has hung for ever.

  Args:
    key: randomness, consumed.
    rows: n.
    columns: m.

  Returns:
    [n, m] float32.
  """
  tall, wide = max(rows, columns), min(rows, columns)
  gaussian = jax.random.normal(key, (tall, wide))
  # Singular values of such a matrix end near sqrt(tall) + sqrt(wide); the iteration
  # takes all between 0 and sqrt(3) to 1, the smallest by a factor of 1.5 at a time.
  start = gaussian / (tall**0.5 + wide**0.5)

  def gram(basis: jax.Array) -> jax.Array:
    return jnp.matmul(basis.T, basis, precision='highest')

  def unfinished(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
    steps, _, product = carry
    return (steps < 64) & (jnp.max(jnp.abs(product - jnp.eye(wide))) > 1e-5)

  def improve(
    carry: tuple[jax.Array, jax.Array, jax.Array],
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    steps, basis, product = carry
    correction = 1.5 * jnp.eye(wide) - 0.5 * product
    basis = jnp.matmul(basis, correction, precision='highest')
    return steps + 1, basis, gram(basis)

  _, basis, _ = jax.lax.while_loop(
    unfinished, improve, (jnp.zeros((), jnp.int32), start, gram(start))
  )
  return basis if rows >= columns else basis.T


def apply_mlp(params: MLP, inputs: jax.Array, activation: Activation) -> jax.Array:
  """Runs the network on inputs [..., sizes[0]]; the output layer stays linear."""
  hidden = split_rows(inputs)
  for layer in params[:-1]:
    hidden = activation(product(hidden, layer.kernel) + layer.bias)
  return product(hidden, params[-1].kernel) + params[-1].bias


@jax.custom_vjp
def product(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
  """`inputs @ kernel`, [..., n] and [n, m], with a gradient that is fast on CPU.

  XLA's CPU kernels multiply slowly by a transposed left operand, which is what the
  kernel's gradient is: written out first, PPO's gradient step takes two thirds of
  the time. Of both operands the narrower one is written out: where a wide layer meets
  a few outputs, all of its activations would be otherwise.
  """
  return inputs @ kernel


def _product_forward(
  inputs: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return inputs @ kernel, (inputs, kernel)


def _product_backward(
  saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
  inputs, kernel = saved
  rows = inputs.reshape(-1, inputs.shape[-1])
  columns = gradient.reshape(-1, gradient.shape[-1])
  if columns.shape[-1] < rows.shape[-1]:
    of_kernel = (jax.lax.optimization_barrier(columns.T) @ rows).T
  else:
    of_kernel = jax.lax.optimization_barrier(rows.T) @ columns
  return gradient @ kernel.T, of_kernel


product.defvjp(_product_forward, _product_backward)
