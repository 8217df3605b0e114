"""What crosses the border of a device's part; meshes themselves: test_placement."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from rlfb_jax.core.mesh import DATA, SEED, over_parts

MESH = Mesh(
  np.array(jax.devices()[:1]).reshape(1, 1),
  (SEED, DATA),
  axis_types=(AxisType.Auto,) * 2,
)


def test_arrays_without_elements_are_made_by_each_part():
  """XLA of jax 0.11 crashes where one is an argument of a part."""
  seen = []

  def part(rows, empty, shared):
    seen.append((rows.shape, empty.shape, str(empty.dtype), shared.shape))
    return rows + shared, empty

  def spread(rows, empty, shared):
    settings = {'axis': SEED, 'devices': 1, 'mesh': MESH, 'axis_names': {SEED, DATA}}
    return over_parts(part, (rows, empty), shared, **settings)

  args = jnp.ones((4, 2)), jnp.zeros((4, 0), jnp.int32), jnp.ones(2)
  rows, empty = jax.jit(spread)(*args)
  np.testing.assert_array_equal(rows, np.full((4, 2), 2.0))
  assert (empty.shape, empty.dtype) == ((4, 0), jnp.int32)
  assert set(seen) == {((4, 2), (4, 0), 'int32', (2,))}
  equations = jax.make_jaxpr(spread)(*args).jaxpr.eqns
  (crossing,) = [e for e in equations if e.primitive.name == 'shard_map']
  assert [v.aval.shape for v in crossing.invars] == [(4, 2), (2,)]
