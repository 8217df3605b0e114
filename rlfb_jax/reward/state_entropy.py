"""Unsupervised pre-training: pay the agent for states unlike those it has seen.

The intrinsic reward is the Euclidean distance from an observation to its k-th nearest
neighbour among all observations so far, divided by its running standard deviation
(B-Pref's public code for PEBBLE and PrefPPO, which rating-based RL shares). As there,
and unlike the PEBBLE paper's equation, no logarithm is taken and no mean subtracted.
"""

import flax.struct
import jax
import jax.numpy as jnp

from rlfb_jax.core.normalization import (
  RunningStatistics,
  init_statistics,
  update_statistics,
)

CHUNK_ROWS = 128  # Queries whose distances to the whole buffer exist at once.
GROUP = 64  # Columns reduced to their minimum before a selection.
SPARE = 8  # Candidates beyond the k + 1 nearest that are measured exactly.
STD_FLOOR = 1e-6


class StateEntropyState(flax.struct.PyTreeNode):
  """Observations seen so far, a ring.

  Attributes:
    obs: raw observations, [C, ds].
    head: where the next rollout goes, [] int32.
    filled: rows held, [] int32.
    statistics: of the distances, vectors of size 1.
  """

  obs: jax.Array
  head: jax.Array
  filled: jax.Array
  statistics: RunningStatistics


def init_state_entropy(capacity: int, observation_size: int) -> StateEntropyState:
  """An empty ring for `capacity` observations."""
  return StateEntropyState(
    obs=jnp.zeros((capacity, observation_size), jnp.float32),
    head=jnp.zeros((), jnp.int32),
    filled=jnp.zeros((), jnp.int32),
    statistics=init_statistics(1),
  )


def smallest(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
  """The k smallest of each row, ascending, and where they are: [R, M] -> [R, k] twice.

  The k smallest lie in the k groups of columns with the smallest minima, so that all
  but k groups are read once, by a minimum: about 20 times faster on CPU than
  `lax.top_k` at M = 32768. Exact; ties may be resolved either way.
  """
  rows, columns = values.shape
  groups = columns // GROUP
  if columns % GROUP or groups < 2 * k:
    negative, index = jax.lax.top_k(-values, k)
    return -negative, index
  grouped = values.reshape(rows, GROUP, groups)  # Column c is in group c % groups.
  _, chosen = jax.lax.top_k(-jnp.min(grouped, axis=1), k)
  short = jnp.take_along_axis(grouped, chosen[:, None, :], axis=2)
  negative, index = jax.lax.top_k(-short.reshape(rows, -1), k)
  group = jnp.take_along_axis(chosen, index % k, axis=1)
  return -negative, (index // k) * groups + group


def knn_distances(
  queries: jax.Array, limits: jax.Array, points: jax.Array, ages: jax.Array, k: int
) -> jax.Array:
  """Distance to the (k+1)-th nearest visible point, the query itself being one.

  Candidates come from |x|^2 + |y|^2 - 2 x.y about the points' centre, one matrix
  product; that form cancels for near neighbours, so the best k + 1 + 8 are then
  measured again as differences.

  Args:
    queries: [R, ds].
    limits: query r sees points with age below `limits[r]`, [R] int32.
    points: [M, ds].
    ages: order of insertion of the points, [M] int32.
    k: neighbours, the query itself not counted. Where fewer than k + 1 points are
      visible, the farthest of them counts.

  Returns:
    [R]; 0 for a query that is not finite. Points that are not finite are invisible.
  """
  finite = jnp.all(jnp.isfinite(points), axis=-1)
  real = jnp.all(jnp.isfinite(queries), axis=-1)
  points = jnp.where(finite[:, None], points, 0.0)
  queries = jnp.where(real[:, None], queries, 0.0)
  centre = jnp.sum(points, axis=0) / jnp.maximum(jnp.sum(finite), 1)
  points, queries = points - centre, queries - centre
  norms = jnp.sum(jnp.square(points), axis=-1)
  padding = -points.shape[0] % GROUP
  points = jnp.pad(points, ((0, padding), (0, 0)))
  norms = jnp.pad(norms, (0, padding))
  # A point that nobody sees is younger than every limit.
  never = jnp.iinfo(jnp.int32).max
  ages = jnp.pad(jnp.where(finite, ages, never), (0, padding), constant_values=never)
  num_candidates = min(k + 1 + SPARE, points.shape[0])

  def chunk(x: jax.Array, limit: jax.Array) -> jax.Array:
    product = jnp.matmul(x, points.T, precision=jax.lax.Precision.HIGHEST)
    visible = ages[None, :] < limit[:, None]
    rough, index = smallest(
      jnp.where(visible, norms[None, :] - 2.0 * product, jnp.inf), num_candidates
    )
    difference = points[index] - x[:, None, :]
    exact = jnp.sqrt(jnp.sum(jnp.square(difference), axis=-1))
    exact = jnp.sort(jnp.where(jnp.isfinite(rough), exact, jnp.inf), axis=-1)
    seen = jnp.sum(jnp.isfinite(exact), axis=-1)
    rank = jnp.clip(seen - 1, 0, min(k, num_candidates - 1))
    nearest = jnp.take_along_axis(exact, rank[:, None], axis=-1)[:, 0]
    return jnp.where(seen > 0, nearest, 0.0)

  rows = queries.shape[0]
  num_chunks = -(-rows // CHUNK_ROWS)
  size = -(-rows // num_chunks)
  extra = num_chunks * size - rows
  xs = jnp.pad(queries, ((0, extra), (0, 0))).reshape(num_chunks, size, -1)
  ls = jnp.pad(limits, (0, extra)).reshape(num_chunks, size)
  distances = jax.lax.map(lambda a: chunk(*a), (xs, ls)).reshape(-1)[:rows]
  return jnp.where(real, distances, 0.0)


def state_entropy_reward(
  state: StateEntropyState, obs: jax.Array, k: int = 5
) -> tuple[StateEntropyState, jax.Array]:
  """Adds a rollout and pays for it.

  Each step is compared with everything up to and including its own time step, as if
  the environments' observations were added step by step; the running standard
  deviation too is updated with a step's distances before it divides them. (The public
  code's running mean drifts by an error in its merge; ours is exact.)

  Args:
    state: what was seen before.
    obs: raw observations, [T, N, ds]; T N must divide the capacity.
    k: which neighbour, the observation itself not counted.

  Returns:
    The new state and the intrinsic reward, [T, N].

  Raises:
    ValueError: at trace time, if T N does not divide the capacity.
  """
  capacity = state.obs.shape[0]
  steps, envs, _ = obs.shape
  rows = steps * envs
  if rows > capacity or capacity % rows:
    nearest = max(1, round(capacity / rows)) * rows
    raise ValueError(
      f'A state-entropy buffer of {capacity} observations must hold a whole number '
      f'of rollouts of {rows}; try {nearest}.'
    )
  flat = obs.reshape(rows, -1)
  points = jax.lax.dynamic_update_slice(
    state.obs, flat, (state.head, jnp.zeros((), jnp.int32))
  )
  filled = jnp.minimum(state.filled + rows, capacity)
  # Ages: earlier rollouts 0, this one's steps 1 to T, empty rows beyond every limit.
  slot = jnp.arange(capacity)
  ours = (slot >= state.head) & (slot < state.head + rows)
  ages = jnp.where(ours, (slot - state.head) // envs + 1, 0)
  ages = jnp.where(slot < filled, ages, steps + 1)
  limits = jnp.repeat(jnp.arange(steps) + 2, envs)
  distances = knn_distances(flat, limits, points, ages, k).reshape(steps, envs)

  def pay(
    statistics: RunningStatistics, distance: jax.Array
  ) -> tuple[RunningStatistics, jax.Array]:
    statistics = update_statistics(statistics, distance[:, None])
    std = statistics.std[0]
    return statistics, distance / jnp.where(std > STD_FLOOR, std, 1.0)

  statistics, reward = jax.lax.scan(pay, state.statistics, distances)
  state = StateEntropyState(
    obs=points,
    head=(state.head + rows) % capacity,
    filled=filled,
    statistics=statistics,
  )
  return state, reward
