"""Python functions that compiled programs call by name, on CPUs and NVIDIA GPUs.

JAX does not write a program with a `jax.pure_callback` into its compilation cache,
so that each process would compile everything that steps C MuJoCo anew. Here the
function is a target of XLA's foreign function interface instead: the program holds
only its name and is cached; the process that loads it brings the function. On a GPU
it also spares the arrays that `jax.pure_callback` makes of its arguments on the way.

The structures below are those of `xla/ffi/api/c_api.h`, version 0.3 (shipped in
`jax.ffi.include_dir()`). XLA checks the version when a target is registered; where
it refuses, or on other devices, `jax.pure_callback` takes over.

Ctrl-C and other early ends of the process need care, because XLA runs programs on
threads of its own and knows nothing of Python: see `_end_programs`, `_interrupt`.
"""

import atexit
import ctypes
import functools
import math
import signal
import threading
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.extend
import numpy as np

_VERSION = (0, 3)
_METADATA = 1  # Extension type by which XLA asks for the version.
_INTERNAL = 13  # Error code.
_DTYPES = {4: np.dtype(np.int32), 8: np.dtype(np.uint32), 11: np.dtype(np.float32)}
_RETRY_SECONDS = 0.01  # Until an interrupt that came in a host call comes again.

_Size, _Int, _Long, _Pointer = (
  ctypes.c_size_t,
  ctypes.c_int,
  ctypes.c_int64,
  ctypes.c_void_p,
)


class _Extension(ctypes.Structure):
  pass


_HEAD: Any = [('struct_size', _Size), ('extension', ctypes.POINTER(_Extension))]
_Extension._fields_ = [
  ('struct_size', _Size),
  ('type', _Int),
  ('next', ctypes.POINTER(_Extension)),
]


class _Version(ctypes.Structure):
  _fields_ = [*_HEAD, ('major', _Int), ('minor', _Int)]


class _Metadata(ctypes.Structure):
  _fields_ = [('struct_size', _Size), ('version', _Version), ('traits', ctypes.c_uint)]


class _MetadataExtension(ctypes.Structure):
  _fields_ = [('base', _Extension), ('metadata', ctypes.POINTER(_Metadata))]


class _ErrorArguments(ctypes.Structure):
  _fields_ = [*_HEAD, ('message', ctypes.c_char_p), ('code', _Int)]


class _DestroyArguments(ctypes.Structure):
  _fields_ = [*_HEAD, ('error', _Pointer)]


class _StreamArguments(ctypes.Structure):
  _fields_ = [*_HEAD, ('context', _Pointer), ('stream', _Pointer)]


_CreateError = ctypes.CFUNCTYPE(_Pointer, ctypes.POINTER(_ErrorArguments))
_DestroyError = ctypes.CFUNCTYPE(None, ctypes.POINTER(_DestroyArguments))
_GetStream = ctypes.CFUNCTYPE(_Pointer, ctypes.POINTER(_StreamArguments))


class _Api(ctypes.Structure):
  _fields_ = [
    *_HEAD,
    ('version', _Version),
    ('internal', _Pointer),
    ('create_error', _CreateError),
    ('explain_error', _Pointer),
    ('destroy_error', _DestroyError),
    ('register', _Pointer),
    ('get_stream', _GetStream),
  ]


class _Buffer(ctypes.Structure):
  _fields_ = [
    *_HEAD,
    ('dtype', _Int),
    ('data', _Pointer),
    ('rank', _Long),
    ('dims', ctypes.POINTER(_Long)),
  ]


class _Buffers(ctypes.Structure):
  _fields_ = [
    *_HEAD,
    ('size', _Long),
    ('types', _Pointer),
    ('items', ctypes.POINTER(ctypes.POINTER(_Buffer))),
  ]


class _CallFrame(ctypes.Structure):
  """As far as it is read; attributes and a future follow."""

  _fields_ = [
    *_HEAD,
    ('api', ctypes.POINTER(_Api)),
    ('context', _Pointer),
    ('stage', _Int),
    ('args', _Buffers),
    ('results', _Buffers),
  ]


_Handler = ctypes.CFUNCTYPE(_Pointer, ctypes.POINTER(_CallFrame))


_targets: dict[str, bool] = {}  # By name, whether programs can call it.
_handlers: list[Any] = []  # Kept for ever, as XLA keeps their addresses.
_registering = threading.Lock()
_ending = threading.Event()


def host_call(
  name: str,
  function: Callable[..., tuple[np.ndarray, ...]],
  results: Sequence[jax.ShapeDtypeStruct],
  *args: jax.Array,
) -> Sequence[jax.Array]:
  """Calls NumPy code from inside a program, cached or not.

  Under `jax.vmap` it is one call, all arguments broadcast along a new leading axis.

  Args:
    name: says what the function computes, across processes too: a program that was
      cached under this name will call whatever is registered as it now. The first
      function of a name serves all later ones in the process.
    function: pure; NumPy arrays to NumPy arrays. The arguments are read-only and
      end with the call, the results are copied. It must not call JAX.
    results: shapes and types (int32, uint32 or float32).
    *args: arrays of these types.
  """
  if not _register(name, function):
    return jax.pure_callback(function, results, *args, vmap_method='broadcast_all')
  if (
    threading.current_thread() is threading.main_thread()
    # A handler that somebody else has set stays.
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
  ):
    signal.signal(signal.SIGINT, _interrupt)
  call = jax.ffi.ffi_call(name, results, vmap_method='broadcast_all')
  return call(*args)


def _register(name: str, function: Callable[..., tuple[np.ndarray, ...]]) -> bool:
  """Whether XLA has a target of this name where programs run, now or from before."""
  with _registering:
    if name not in _targets:
      memories = _memories()
      _targets[name] = bool(memories) and all(
        _take(name, functools.partial(_handle, function, memory), platform)
        for platform, memory in memories.items()
      )
    return _targets[name]


def _take(name: str, handle: Callable[[Any], int | None], platform: str) -> bool:
  """Whether XLA takes a function as the target of this name."""
  handler = _Handler(handle)
  _handlers.append(handler)
  try:
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform=platform)
  except Exception:  # XLA raises several kinds; all mean: not this version.
    return False
  return True


def _memories() -> dict[str, '_Memory']:
  """How buffers are reached, by XLA's names of the platforms that programs run on.

  Empty where some run on a device whose buffers cannot be reached.
  """
  memories: dict[str, _Memory] = {'cpu': _HostMemory()}
  if jax.default_backend() == 'cpu':
    return memories
  # Platforms of other makers may be on a machine with NVIDIA's driver.
  if 'cuda' not in jax.extend.backend.get_backend().platform_version:
    return {}
  try:
    memories['CUDA'] = _CudaMemory(ctypes.CDLL('libcuda.so.1'))
  except OSError:
    return {}
  return memories


def _handle(
  function: Callable[..., tuple[np.ndarray, ...]], memory: '_Memory', call: Any
) -> int | None:
  """Answers one call of XLA: None for success, or the address of an error.

  Args:
    function: what to call.
    memory: where the buffers of the call are.
    call: pointer to its `_CallFrame`.
  """
  frame: _CallFrame = call[0]
  if frame.extension and frame.extension[0].type == _METADATA:
    extension = ctypes.cast(frame.extension, ctypes.POINTER(_MetadataExtension))
    metadata = extension[0].metadata[0]
    metadata.version.major, metadata.version.minor = _VERSION
    metadata.traits = 0
    return None
  try:
    if _ending.is_set():
      raise RuntimeError('the process is ending')
    outputs = function(*memory.read(frame))
    memory.write(frame, outputs)
  # All of them: what leaves here ctypes prints and drops, and answers "success".
  except BaseException as error:
    message = ''.join(traceback.format_exception_only(error)).strip()
    arguments = _ErrorArguments(
      struct_size=ctypes.sizeof(_ErrorArguments),
      message=message.encode(errors='replace'),
      code=_INTERNAL,
    )
    return frame.api[0].create_error(ctypes.byref(arguments))
  return None


class _Memory(Protocol):
  """How the buffers of a call become arrays, and arrays its results."""

  def read(self, frame: _CallFrame) -> list[np.ndarray]:
    """The arguments, read-only."""

  def write(self, frame: _CallFrame, outputs: Sequence[np.ndarray]) -> None:
    """Fills the results."""


class _HostMemory:
  """Buffers that this process can read."""

  def read(self, frame: _CallFrame) -> list[np.ndarray]:
    return _views(frame.args, writeable=False)

  def write(self, frame: _CallFrame, outputs: Sequence[np.ndarray]) -> None:
    for view, output in zip(_views(frame.results), outputs, strict=True):
      view[...] = output


class _CudaMemory:
  """Buffers of an NVIDIA GPU, copied through its driver in the call's own stream.

  XLA has only queued what computes the arguments: the host waits for it, and then for
  the results to be on the device, before it lets go of its own copies.
  """

  def __init__(self, driver: Any):
    """Takes the driver's library.

    Args:
      driver: with the functions of `cuda.h`, which return 0 for success.
    """
    self._driver = driver

  def read(self, frame: _CallFrame) -> list[np.ndarray]:
    stream = self._enter(frame)
    arrays = []
    for buffer, shape, dtype in _contents(frame.args):
      array = np.empty(shape, dtype)
      if array.nbytes:
        to, start = _Pointer(array.ctypes.data), _Pointer(buffer.data)
        self._do('cuMemcpyDtoHAsync_v2', to, start, _Size(array.nbytes), stream)
      arrays.append(array)
    self._do('cuStreamSynchronize', stream)
    for array in arrays:
      array.flags.writeable = False
    return arrays

  def write(self, frame: _CallFrame, outputs: Sequence[np.ndarray]) -> None:
    stream = self._enter(frame)
    kept = []
    for (buffer, shape, dtype), output in zip(
      _contents(frame.results), outputs, strict=True
    ):
      array = np.empty(shape, dtype)
      array[...] = output
      kept.append(array)
      if array.nbytes:
        to, start = _Pointer(buffer.data), _Pointer(array.ctypes.data)
        self._do('cuMemcpyHtoDAsync_v2', to, start, _Size(array.nbytes), stream)
    self._do('cuStreamSynchronize', stream)

  def _enter(self, frame: _CallFrame) -> Any:
    """The call's stream, whose device this thread speaks to from now on."""
    arguments = _StreamArguments(
      struct_size=ctypes.sizeof(_StreamArguments), context=frame.context
    )
    api = frame.api[0]
    error = api.get_stream(ctypes.byref(arguments))
    if error:
      found = _DestroyArguments(
        struct_size=ctypes.sizeof(_DestroyArguments), error=error
      )
      api.destroy_error(ctypes.byref(found))
      raise RuntimeError('XLA has no stream for a call from its program')
    stream, device = _Pointer(arguments.stream), _Pointer()
    self._do('cuStreamGetCtx', stream, ctypes.byref(device))
    self._do('cuCtxSetCurrent', device)
    return stream

  def _do(self, name: str, *args: Any) -> None:
    code = getattr(self._driver, name)(*args)
    if code:
      raise RuntimeError(f'{name} of the CUDA driver answered {code}')


def _interrupt(number: int, frame: types.FrameType | None) -> None:
  """Handles SIGINT: raises KeyboardInterrupt, but never inside a host call.

  XLA runs small programs on the thread that starts them. Python may raise an
  interrupt anywhere in that thread, so also in `_handle` before its `try`, where it
  would be lost and the results be whatever the memory held. One that finds a host
  call at work comes again until it finds none, which is when the program has ended.
  """
  caller = frame
  while caller is not None:
    if caller.f_code is _handle.__code__:
      again = threading.Timer(_RETRY_SECONDS, _interrupt_again)
      again.daemon = True
      again.start()
      return
    caller = caller.f_back
  signal.default_int_handler(number, frame)


def _interrupt_again() -> None:
  # A real signal, which also wakes a thread that sleeps or waits for a file.
  if signal.getsignal(signal.SIGINT) is _interrupt:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@atexit.register
def _end_programs() -> None:
  """Aborts the programs that still run, and returns when they have ended.

  Larger programs run on XLA's threads, also when an exception or Ctrl-C has ended the
  main thread. From soon after this hook Python lets no other thread in: a host call
  would never return, and JAX, which waits for its programs, would hang for ever.
  JAX is imported, so its hooks are registered, before this one: they run after it.
  """
  if not any(_targets.values()):
    return
  _ending.set()
  if signal.getsignal(signal.SIGINT) is _interrupt:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C once more: no more waiting.
  # A device runs programs in the order in which they were started, also after one that
  # failed, and CPUs of one process are one to XLA. There may be no array left to wait
  # for that belongs to them.
  devices = jax.local_devices()[: 1 if jax.default_backend() == 'cpu' else None]
  last = jax.jit(lambda x: x + 1)
  jax.block_until_ready([last(jax.device_put(0.0, device)) for device in devices])


def _views(buffers: _Buffers, writeable: bool = True) -> list[np.ndarray]:
  """The buffers as arrays, without a copy."""
  arrays = []
  for buffer, shape, dtype in _contents(buffers):
    size = math.prod(shape) * dtype.itemsize
    memory: Any = bytearray()
    if size:  # An empty buffer may have no address.
      memory = (ctypes.c_char * size).from_address(buffer.data)
    array = np.frombuffer(memory, dtype).reshape(shape)
    if not writeable:
      array.flags.writeable = False
    arrays.append(array)
  return arrays


def _contents(
  buffers: _Buffers,
) -> Iterator[tuple[_Buffer, tuple[int, ...], np.dtype[Any]]]:
  """Each buffer with the shape and the type of what is in it."""
  for i in range(buffers.size):
    buffer = buffers.items[i][0]
    yield buffer, tuple(buffer.dims[: buffer.rank]), _DTYPES[buffer.dtype]
