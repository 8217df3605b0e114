"""Host functions by name: values, vmap, errors, and programs that can be cached."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from rlfb_jax.physics import host_call as module
from rlfb_jax.physics.host_call import host_call

pytestmark = pytest.mark.skipif(
  jax.default_backend() != 'cpu', reason='Elsewhere it is jax.pure_callback.'
)
SHAPES = []


def _scale_and_count(x, counts, empty):
  SHAPES.append(x.shape)
  x, counts = np.asarray(x), np.asarray(counts)
  assert not x.flags.writeable
  return 2 * x.astype(np.float64), counts.view(np.uint32) + 1, empty


def call(x, counts, name='test_scale', function=_scale_and_count):
  results = (
    jax.ShapeDtypeStruct(x.shape, jnp.float32),
    jax.ShapeDtypeStruct(counts.shape, jnp.uint32),
    jax.ShapeDtypeStruct((*x.shape[:-1], 0), jnp.float32),
  )
  return host_call(name, function, results, x, counts, jnp.zeros((*x.shape[:-1], 0)))


X = np.arange(6, dtype=np.float32).reshape(2, 3)
COUNTS = np.arange(2, dtype=np.int32)


def test_values_types_and_empty_arrays():
  doubled, counts, empty = jax.jit(call)(X, COUNTS)
  np.testing.assert_array_equal(doubled, 2 * X)
  np.testing.assert_array_equal(counts, COUNTS + 1)
  assert (doubled.dtype, counts.dtype, empty.shape) == (jnp.float32, jnp.uint32, (2, 0))
  assert module._targets['test_scale'].handler is not None


def test_vmap_is_one_call():
  SHAPES.clear()
  doubled, *_ = jax.jit(jax.vmap(call, in_axes=(0, None)))(np.stack([X, -X]), COUNTS)
  np.testing.assert_array_equal(doubled, [2 * X, -2 * X])
  assert SHAPES == [(2, 2, 3)]


def test_an_exception_reaches_the_caller():
  def fail(*args):
    raise KeyError('no such simulation')

  with pytest.raises(Exception, match=r'KeyError.*no such simulation'):
    jax.block_until_ready(call(X, COUNTS, 'test_fail', fail))


def test_what_xla_refuses_is_a_callback(monkeypatch):
  monkeypatch.setattr(module, '_VERSION', (9, 9))
  doubled, *_ = jax.jit(lambda x: call(x, COUNTS, 'test_refused'))(X)
  assert module._targets['test_refused'].handler is None
  np.testing.assert_array_equal(doubled, 2 * X)


def test_a_program_with_it_is_cached_and_its_text_is_the_same_in_all_processes(
  tmp_path,
):
  names = (
    'jax_compilation_cache_dir',
    'jax_persistent_cache_min_compile_time_secs',
  )
  before = {name: getattr(jax.config, name) for name in names}
  try:
    compilation_cache.reset_cache()
    for name, value in zip(names, (str(tmp_path), 0.0), strict=True):
      jax.config.update(name, value)
    lowered = jax.jit(lambda x: call(x, COUNTS)[0] - 7).lower(X)
    lowered.compile()
    assert any('cache' in path.name for path in tmp_path.iterdir())
    assert 'test_scale' in lowered.as_text()
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()
