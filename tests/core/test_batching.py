import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.core.batching import (
  fold_vmap,
  in_turn,
  select_rows,
  update_rows_if_any,
)


def counted(calls):
  """A row-wise function that records every time it really runs."""

  def note(x):
    calls.append(np.shape(x))
    return np.asarray(x)

  def function(x):
    seen = jax.pure_callback(note, x, x, vmap_method='broadcast_all')
    return {'y': 2 * seen, 'n': jnp.ones(x.shape[0], jnp.int32)}

  return function


def default(x):
  return {'y': -x, 'n': jnp.zeros(x.shape[0], jnp.int32)}


def test_select_rows_keeps_rows_together_also_of_keys():
  mask = jnp.array([True, False, True])
  new = (jnp.ones((3, 2, 2)), jax.random.split(jax.random.key(0), 3))
  old = (jnp.zeros((3, 2, 2)), jax.random.split(jax.random.key(1), 3))
  x, keys = select_rows(mask, new, old)
  np.testing.assert_array_equal(x[:, 0, 0], [1, 0, 1])
  data = jax.random.key_data
  np.testing.assert_array_equal(data(keys)[1], data(old[1])[1])
  np.testing.assert_array_equal(data(keys)[2], data(new[1])[2])


@pytest.mark.parametrize('lead', [(), (3,), (2, 3)])
def test_update_rows_if_any_runs_once_or_never(lead):
  calls = []
  function = counted(calls)

  def update(mask, x):
    return update_rows_if_any(function, mask, x, default(x))

  for _ in lead:
    update = jax.vmap(update)
  update = jax.jit(update)
  x = jnp.arange(4.0 * np.prod(lead, dtype=int)).reshape(*lead, 4)

  mask = jnp.zeros_like(x, bool)
  out = jax.block_until_ready(update(mask, x))
  assert calls == []
  np.testing.assert_array_equal(out['y'], -x)

  mask = mask.at[..., 1].set(True)
  mask = mask.at[(0,) * len(lead)].set(False) if lead else mask
  out = jax.block_until_ready(update(mask, x))
  assert calls == [(*lead, 4)]
  np.testing.assert_array_equal(out['y'], np.where(mask, 2 * x, -x))
  np.testing.assert_array_equal(out['n'], mask.astype(int))


def test_update_rows_if_any_inside_a_scan_inside_vmap():
  calls = []
  function = counted(calls)

  def run(x):
    def body(x, i):
      due = (jnp.arange(2) == 0) & (i == 3)
      y = update_rows_if_any(function, due, x, default(-x))['y']
      return y, None

    return jax.lax.scan(body, x, jnp.arange(6))[0]

  x = jnp.arange(6.0).reshape(3, 2)
  out = jax.block_until_ready(jax.jit(jax.vmap(run))(x))
  np.testing.assert_array_equal(out, x * np.array([2.0, 1.0]))
  assert len(calls) == 1  # In one of six steps, for all members at once.


def test_update_rows_with_an_unbatched_operand():
  mask = jnp.array([[True, False], [False, False]])

  def update(mask, key):
    def fresh(key):
      return jax.random.uniform(key, (2,))

    return update_rows_if_any(fresh, mask, key, jnp.zeros(2))

  key = jax.random.key(0)
  out = jax.vmap(update, in_axes=(0, None))(mask, key)
  want = np.where(mask, jax.random.uniform(key, (2,)), 0)
  np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize('lead', [(), (3,), (2, 3)])
def test_fold_vmap_sees_one_axis(lead):
  shapes = []

  def function(x, y):
    shapes.append((x.shape, y.shape))
    return x + y[:, None], {'y': y}

  folded = fold_vmap(function)
  for axis in range(len(lead)):
    # The second argument is shared by the outermost members.
    folded = jax.vmap(folded, in_axes=(0, None if axis == len(lead) - 1 else 0))
  x = jnp.arange(float(np.prod((*lead, 4, 2)))).reshape(*lead, 4, 2)
  y = jnp.arange(4.0 * np.prod(lead[1:], dtype=int)).reshape(*lead[1:], 4)
  a, b = folded(x, y)
  want_y = np.broadcast_to(y, (*lead, 4))
  np.testing.assert_array_equal(a, x + want_y[..., None])
  np.testing.assert_array_equal(b['y'], want_y)
  rows = 4 * int(np.prod(lead))
  assert shapes[-1] == ((rows, 2), (rows,))


@pytest.mark.parametrize('wrap', [in_turn, lambda f: f])
def test_members_in_turn_may_close_over_their_own_values(wrap):
  table = jnp.arange(3.0)

  def run(rate, shared, key, x):
    def body(x, _):
      def step(x, key):
        noise = jax.random.uniform(jax.random.fold_in(key, 1), (3,))
        return {'x': x + rate * table + shared * noise}

      return wrap(step)(x, key)['x'], None

    return jax.lax.scan(body, x, None, length=2)[0]

  rates, keys = jnp.array([0.5, 2.0]), jax.random.split(jax.random.key(0), 2)
  over_rows = jax.jit(jax.vmap(run, in_axes=(0, None, 0, 0)))
  out = over_rows(rates, 0.25, keys, jnp.ones((2, 3)))
  for row in range(2):
    noise = jax.random.uniform(jax.random.fold_in(keys[row], 1), (3,))
    want = 1 + 2 * (rates[row] * table + 0.25 * noise)
    np.testing.assert_allclose(out[row], want, rtol=1e-6)


def test_update_rows_if_any_may_close_over_each_members_own_value():
  calls = []
  function = counted(calls)

  def update(mask, x, factor, shared):
    def scaled(x):
      out = function(x)
      return out | {'y': factor * shared * out['y']}

    return update_rows_if_any(scaled, mask, x, default(x))

  over_rows = jax.jit(jax.vmap(update, in_axes=(0, 0, 0, None)))
  x, mask = jnp.arange(6.0).reshape(2, 3), jnp.array([[True, False, True], [False] * 3])
  factor = jnp.array([3.0, 5.0])
  out = jax.block_until_ready(over_rows(mask, x, factor, 10.0))
  assert calls == [(2, 3)]
  want = np.where(mask, 20 * factor[:, None] * x, -x)
  np.testing.assert_array_equal(out['y'], want)
  jax.block_until_ready(over_rows(jnp.zeros_like(mask), x, factor, 10.0))
  assert len(calls) == 1
