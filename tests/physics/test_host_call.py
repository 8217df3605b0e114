"""Host functions by name: values, vmap, errors, Ctrl-C, and programs to be cached."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from rlfb_jax.physics import host_call as module
from rlfb_jax.physics import xla_ffi
from rlfb_jax.physics.host_call import host_call

pytestmark = pytest.mark.skipif(
  jax.default_backend() not in ('cpu', 'gpu'), reason='There it is jax.pure_callback.'
)
needs_cpu = pytest.mark.skipif(
  jax.default_backend() != 'cpu', reason='It plays a GPU on a CPU.'
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
  assert module._targets['test_scale']


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


@pytest.mark.parametrize('kind', [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_no_kind_of_exception_is_taken_for_success(kind):
  def fail(*args):
    raise kind('no results')

  with pytest.raises(Exception, match=rf'{kind.__name__}: no results'):
    jax.block_until_ready(call(X, COUNTS, f'test_{kind.__name__}', fail))


def test_ctrl_c_in_a_host_call_spoils_no_result_and_comes_after_the_program(request):
  seen = []

  def count(x):
    seen.append(float(x))
    if x in (3, 5):
      signal.raise_signal(signal.SIGINT)
    return (np.asarray(x) + 1,)

  @jax.jit  # Small, so XLA runs it on this thread, the only one with interrupts.
  def program(x):
    shapes = (jax.ShapeDtypeStruct((), jnp.float32),)
    step = lambda x, _: (host_call('test_count', count, shapes, x)[0], x)  # noqa: E731
    return jax.lax.scan(step, x, length=50)

  interrupts = 0
  # Whatever handler other tests have left: only Python's own is replaced.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
  try:
    end, visited = jax.device_get(program(jnp.zeros(())))
    time.sleep(5)
  except KeyboardInterrupt:
    interrupts += 1
  with contextlib.suppress(KeyboardInterrupt):
    time.sleep(0.2)  # The second signal may come by itself.
  assert interrupts == 1
  assert end == 50
  np.testing.assert_array_equal(visited, np.arange(50))
  assert seen == list(range(50))


def test_ctrl_c_ends_a_training_run_soon_and_with_its_message(tmp_path):
  command = [
    *(sys.executable, '-m', 'rlfb_jax.bin.train', f'--run_dir={tmp_path / "run"}'),
    *('--task=cartpole_balance', '--engine=native', '--method=ppo'),
    # A chunk takes a second, nearly all of it in host calls.
    *('--total_env_steps=128000000', '--ppo_num_envs=128', '--ppo_rollout_steps=1000'),
    *('--ppo_num_epochs=1', '--ppo_minibatch_size=128000', '--ppo_hidden_size=4'),
    *('--ppo_hidden_layers=1', '--eval_episodes=0', '--tensorboard=false'),
  ]
  environ = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  with subprocess.Popen(
    command, env=environ, stderr=subprocess.PIPE, text=True
  ) as process:
    try:
      assert process.stderr is not None
      for line in process.stderr:
        if 'started in' in line:  # The second chunk is running.
          break
      process.send_signal(signal.SIGINT)
      _, error = process.communicate(timeout=30)
    finally:
      process.kill()
  assert process.returncode == 130
  assert 'rlfb-train: stopped; metrics so far are in' in error
  assert 'Traceback' not in error
  assert 'ignored' not in error


def test_what_xla_refuses_is_a_callback(monkeypatch):
  monkeypatch.setattr(module, '_VERSION', (9, 9))
  doubled, *_ = jax.jit(lambda x: call(x, COUNTS, 'test_refused'))(X)
  assert not module._targets['test_refused']
  np.testing.assert_array_equal(doubled, 2 * X)


class Driver:
  """NVIDIA's, of a device whose memory is the host's; says what it was asked."""

  def __init__(self, broken=''):
    self.broken = broken
    self.asked = []

  def __getattr__(self, name):
    def answer(*args):
      self.asked.append(name)
      if name == self.broken:
        return 700
      if name == 'cuStreamGetCtx':
        assert args[0].value == STREAM
        args[1]._obj.value = CONTEXT
      elif name == 'cuCtxSetCurrent':
        assert args[0].value == CONTEXT
      elif name == 'cuStreamSynchronize':
        assert args[0].value == STREAM
      else:
        to, start, size, stream = args
        assert stream.value == STREAM
        ctypes.memmove(to, start, size.value)
      return 0

    return answer


STREAM, CONTEXT = 7, 9
ENTER = ['cuStreamGetCtx', 'cuCtxSetCurrent']
THERE, BACK = ['cuMemcpyDtoHAsync_v2'] * 2, ['cuMemcpyHtoDAsync_v2'] * 2
WAIT = ['cuStreamSynchronize']


def call_on_a_device(monkeypatch, name, driver, has_stream=True):
  memory = xla_ffi.CudaMemory(driver)

  @xla_ffi.GetStream
  def get_stream(arguments):
    arguments[0].stream = STREAM

  class Frame:
    """As XLA's, on a device that has streams."""

    def __init__(self, frame):
      self.args, self.results, self.context = frame.args, frame.results, frame.context
      api = xla_ffi.Api.from_buffer_copy(frame.api[0])
      api.get_stream = get_stream
      self.api = ctypes.pointer(api)

  if has_stream:
    read, write = memory.read, memory.write
    monkeypatch.setattr(memory, 'read', lambda frame: read(Frame(frame)))
    monkeypatch.setattr(memory, 'write', lambda frame, out: write(Frame(frame), out))
  monkeypatch.setattr(module, '_memories', lambda: {'cpu': memory})
  return jax.device_get(jax.jit(lambda x: call(x, COUNTS, name))(X))


@needs_cpu
def test_buffers_of_a_gpu_are_copied_in_the_stream_of_the_call(monkeypatch):
  driver = Driver()
  doubled, counts, empty = call_on_a_device(monkeypatch, 'test_copied', driver)
  np.testing.assert_array_equal(doubled, 2 * X)
  np.testing.assert_array_equal(counts, COUNTS + 1)
  assert empty.shape == (2, 0)
  # Nothing of the empty array; the results are there before the host's copies go.
  assert driver.asked == [*ENTER, *THERE, *WAIT, *ENTER, *BACK, *WAIT]


@needs_cpu
@pytest.mark.parametrize('broken', [*ENTER, THERE[0], BACK[0], *WAIT])
def test_what_the_driver_refuses_is_an_error(broken, monkeypatch):
  with pytest.raises(Exception, match=rf'{broken} of the CUDA driver answered 700'):
    call_on_a_device(monkeypatch, f'test_{broken}', Driver(broken))


@needs_cpu
def test_where_there_is_no_stream_it_is_an_error(monkeypatch):
  with pytest.raises(Exception, match='XLA has no stream'):
    call_on_a_device(monkeypatch, 'test_no_stream', Driver(), has_stream=False)


@needs_cpu
@pytest.mark.parametrize('backend', ['gpu', 'tpu'])
def test_devices_of_other_makers_get_a_callback(backend, monkeypatch):
  # Whether or not this machine has NVIDIA's driver: its platform is XLA's CPU.
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  assert module._memories() == {}
  name = f'test_{backend}'
  doubled, *_ = jax.jit(lambda x: call(x, COUNTS, name))(X)
  assert not module._targets[name]
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
