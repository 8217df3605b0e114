"""Cholesky factors and triangular solves of small matrices, in plain XLA operations.

jaxlib's batched Cholesky on CPU calls LAPACK from the intra-op thread pool: two
independent factorisations in one program can wait for each other for ever on a
machine with two cores. Nothing here calls LAPACK, so that cannot happen, under any
`vmap`. The work is blocked: 16-wide diagonal blocks are eliminated in a short loop,
everything else is a matrix product. At size 90 one factorisation with a few hundred
right-hand sides takes about 0.2 ms on one core.

All functions take leading batch axes, keep the dtype, and use `HIGHEST` precision
for products, because TF32 rounding destroys positive definiteness on GPUs.
A matrix that is not positive definite gives NaN, never an exception.
"""

import jax
import jax.numpy as jnp
from jax import lax

BLOCK = 16


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
  """`a @ b` over leading batch axes in full float32 precision."""
  return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def transpose(a: jax.Array) -> jax.Array:
  """Swaps the last two axes."""
  return jnp.swapaxes(a, -1, -2)


def _spans(size: int) -> list[slice]:
  return [slice(lo, min(lo + BLOCK, size)) for lo in range(0, size, BLOCK)]


def _eliminate(left: jax.Array, symmetric: bool) -> jax.Array:
  """Row elimination of `[left | I]` for one diagonal block [..., m, m].

  Returns:
    The eliminated `[..., m, 2m]`: its right half is `L^-1`; its left half is `L^T`
    if `left` is the symmetric `L L^T`, and I if `left` is `L` itself.
  """
  m = left.shape[-1]
  eye = jnp.broadcast_to(jnp.eye(m, dtype=left.dtype), left.shape)
  work = jnp.concatenate([left, eye], axis=-1)
  index = jnp.arange(m)

  def step(j: jax.Array, work: jax.Array) -> jax.Array:
    row = lax.dynamic_index_in_dim(work, j, axis=-2, keepdims=False)
    pivot = lax.dynamic_index_in_dim(row, j, axis=-1, keepdims=True)
    row = row / (jnp.sqrt(pivot) if symmetric else pivot)
    if symmetric:
      column = row[..., :m]
    else:
      column = lax.dynamic_index_in_dim(work, j, axis=-1, keepdims=False)
    below = jnp.where(index > j, column, 0)
    rest = work - below[..., :, None] * row[..., None, :]
    return jnp.where((index == j)[:, None], row[..., None, :], rest)

  return lax.fori_loop(0, m, step, work)


def _blocked_cholesky(a: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
  """The factor L of `a` and the inverses of its diagonal blocks."""
  rest, columns, inverses = a, [], []
  for span in _spans(a.shape[-1]):
    m = span.stop - span.start
    block = _eliminate(rest[..., :m, :m], symmetric=True)
    diagonal = jnp.tril(transpose(block[..., :m]))
    inverse = jnp.tril(block[..., m:])
    panel = matmul(rest[..., m:, :m], transpose(inverse))
    rest = rest[..., m:, m:] - matmul(panel, transpose(panel))
    above = jnp.zeros((*a.shape[:-2], span.start, m), a.dtype)
    columns.append(jnp.concatenate([above, diagonal, panel], axis=-2))
    inverses.append(inverse)
  return jnp.concatenate(columns, axis=-1), inverses


def _substitute(
  chol: jax.Array, inverses: list[jax.Array], b: jax.Array, transposed: bool
) -> jax.Array:
  """Blocked forward (or, transposed, backward) substitution."""
  spans = list(enumerate(_spans(chol.shape[-1])))
  rest, parts = b, []
  for k, span in reversed(spans) if transposed else spans:
    m = span.stop - span.start
    if transposed:
      part = matmul(transpose(inverses[k]), rest[..., -m:, :])
      coupling = transpose(chol[..., span, : span.start])
      rest = rest[..., :-m, :] - matmul(coupling, part)
    else:
      part = matmul(inverses[k], rest[..., :m, :])
      rest = rest[..., m:, :] - matmul(chol[..., span.stop :, span], part)
    parts.append(part)
  return jnp.concatenate(parts[::-1] if transposed else parts, axis=-2)


@jax.custom_jvp
def cholesky(a: jax.Array) -> jax.Array:
  """Lower Cholesky factor, differentiable in both modes.

  Args:
    a: symmetric positive definite, [..., d, d]; only meant for d up to about 100.

  Returns:
    L with `L L^T = a`, [..., d, d]; NaN where `a` is not positive definite.
  """
  return _blocked_cholesky(a)[0]


@cholesky.defjvp
def _cholesky_jvp(
  primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
  # dL = L tril_half(L^-1 dA L^-T), with the diagonal halved.
  (a,), (da,) = primals, tangents
  chol = cholesky(a)
  da = (da + transpose(da)) / 2
  inner = solve_lower(chol, transpose(solve_lower(chol, da)))
  half = jnp.tril(inner) - jnp.eye(a.shape[-1], dtype=a.dtype) * inner / 2
  return chol, matmul(chol, half)


def solve_lower(chol: jax.Array, b: jax.Array) -> jax.Array:
  """`L^-1 b` by substitution, differentiable in both modes.

  Args:
    chol: lower triangular L, [..., d, d].
    b: right-hand sides, [..., d, m]; leading axes broadcast against those of L.
  """
  lead = jnp.broadcast_shapes(chol.shape[:-2], b.shape[:-2])
  chol = jnp.broadcast_to(chol, (*lead, *chol.shape[-2:]))
  b = jnp.broadcast_to(b, (*lead, *b.shape[-2:]))
  blocks = [chol[..., s, s] for s in _spans(chol.shape[-1])]
  inverses = [
    jnp.tril(_eliminate(lax.stop_gradient(m), symmetric=False)[..., m.shape[-1] :])
    for m in blocks
  ]
  fixed = lax.stop_gradient(chol)
  # The implicit rule differentiates through `matvec` only: no loop residuals.
  return lax.custom_linear_solve(
    lambda x: matmul(chol, x),
    b,
    lambda _, y: _substitute(fixed, inverses, y, transposed=False),
    lambda _, y: _substitute(fixed, inverses, y, transposed=True),
  )


def cholesky_solve(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Factor of `a` and `L^-1 b` in one pass; for code with closed-form gradients.

  Args:
    a: symmetric positive definite, [..., d, d].
    b: right-hand sides, [..., d, m], same leading axes.

  Returns:
    L [..., d, d] and `L^-1 b` [..., d, m]; NaN where `a` is not positive definite.
  """
  chol, inverses = _blocked_cholesky(a)
  return chol, _substitute(chol, inverses, b, transposed=False)
