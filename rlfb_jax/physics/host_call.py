"""Python functions that compiled CPU programs call by name.

JAX does not write a program with a `jax.pure_callback` into its compilation cache,
so that each process would compile everything that steps C MuJoCo anew. Here the
function is a target of XLA's foreign function interface instead: the program holds
only its name and is cached; the process that loads it brings the function.

The structures below are those of `xla/ffi/api/c_api.h`, version 0.3 (shipped in
`jax.ffi.include_dir()`). XLA checks the version when a target is registered; where
it refuses, or on other devices than CPUs, `jax.pure_callback` takes over.

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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
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


_CreateError = ctypes.CFUNCTYPE(_Pointer, ctypes.POINTER(_ErrorArguments))


class _Api(ctypes.Structure):
  _fields_ = [
    *_HEAD,
    ('version', _Version),
    ('internal', _Pointer),
    ('create_error', _CreateError),
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


class _Target(NamedTuple):
  """Kept for ever, as XLA keeps the pointer; None where XLA refused it."""

  handler: Any


_targets: dict[str, _Target] = {}
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
    function: pure; NumPy arrays to NumPy arrays. The arguments are read-only views
      that end with the call, the results are copied. It must not call JAX.
    results: shapes and types (int32, uint32 or float32).
    *args: arrays of these types.
  """
  if jax.default_backend() != 'cpu' or not _register(name, function):
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
  """Whether XLA has a CPU target of this name, now or from before."""
  if name not in _targets:
    handler = _Handler(functools.partial(_handle, function))
    try:
      jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform='cpu')
      _targets[name] = _Target(handler)
    except Exception:  # XLA raises several kinds; all mean: not this version.
      _targets[name] = _Target(None)
  return _targets[name].handler is not None


def _handle(function: Callable[..., tuple[np.ndarray, ...]], call: Any) -> int | None:
  """Answers one call of XLA: None for success, or the address of an error.

  Args:
    function: what to call.
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
    outputs = function(*_views(frame.args, writeable=False))
    for view, output in zip(_views(frame.results), outputs, strict=True):
      view[...] = output
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
  if not any(target.handler for target in _targets.values()):
    return
  _ending.set()
  if signal.getsignal(signal.SIGINT) is _interrupt:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C once more: no more waiting.
  # XLA's CPU client runs programs in the order in which they were started, also after
  # one that failed. There may be no array left to wait for that belongs to them.
  jax.block_until_ready(jax.jit(lambda: jnp.zeros(()))())


def _views(buffers: _Buffers, writeable: bool = True) -> list[np.ndarray]:
  """The buffers as arrays, without a copy."""
  arrays = []
  for i in range(buffers.size):
    buffer = buffers.items[i][0]
    shape = tuple(buffer.dims[: buffer.rank])
    dtype = _DTYPES[buffer.dtype]
    size = math.prod(shape) * dtype.itemsize
    # An empty buffer may have no address.
    memory = (ctypes.c_char * size).from_address(buffer.data) if size else bytearray()
    array = np.frombuffer(memory, dtype).reshape(shape)
    if not writeable:
      array.flags.writeable = False
    arrays.append(array)
  return arrays
