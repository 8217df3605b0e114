"""Greedy k-center: points that lie far from each other and from those taken before."""

import jax
import jax.numpy as jnp


def nearest_centre(points: jax.Array, centres: jax.Array, mask: jax.Array) -> jax.Array:
  """Squared Euclidean distance of each point to the nearest centre, [P].

  Args:
    points: [P, f].
    centres: [C, f].
    mask: which centres exist, [C] bool; infinity where none does.
  """
  # |x - c|^2 = |x|^2 - 2 x c + |c|^2 loses digits far from the origin, so the origin
  # moves among the points.
  origin = jnp.mean(points, axis=0)
  points, centres = points - origin, centres - origin
  products = jnp.dot(points, centres.T, precision=jax.lax.Precision.HIGHEST)
  squares = jnp.sum(points**2, 1)[:, None] + jnp.sum(centres**2, 1) - 2 * products
  squares = jnp.where(mask, jnp.maximum(squares, 0.0), jnp.inf)
  return jnp.min(squares, axis=1, initial=jnp.inf)


def farthest_first(
  points: jax.Array,
  k: int,
  centres: jax.Array,
  mask: jax.Array,
  count: jax.Array | int,
) -> jax.Array:
  """k points, each the farthest from all centres and from those chosen before it.

  Gonzalez' greedy algorithm (1985), within a factor of two of the smallest possible
  covering radius. Without any centre it starts from the first point. Points with
  numbers that are not finite come behind the others, those from `count` on last.

  Args:
    points: [P, f].
    k: how many, at most P.
    centres: points that count as chosen, [C, f].
    mask: which of them exist, [C] bool.
    count: points that may be chosen, the first so many, [], 1 to P.

  Returns:
    Indices in the order of choice, none twice, [k] int32.
  """
  finite = jnp.all(jnp.isfinite(points), axis=1)
  points = jnp.where(finite[:, None], points, 0.0)
  allowed = jnp.arange(points.shape[0]) < count
  # Copies of one that may be chosen keep the origin of the distances among those.
  points = jnp.where(allowed[:, None], points, points[0])
  squares = jnp.where(finite, nearest_centre(points, centres, mask), -1.0)
  squares = jnp.where(allowed, squares, -2.0)

  def choose(
    i: jax.Array, carry: tuple[jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array]:
    chosen, squares = carry
    farthest = jnp.argmax(squares).astype(jnp.int32)
    distance = jnp.sum((points - points[farthest]) ** 2, axis=1)
    squares = jnp.minimum(squares, distance).at[farthest].set(-jnp.inf)
    return chosen.at[i].set(farthest), squares

  return jax.lax.fori_loop(0, k, choose, (jnp.zeros(k, jnp.int32), squares))[0]
