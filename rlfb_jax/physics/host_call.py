"""Python functions that compiled programs call by name, on CPUs and NVIDIA GPUs.

JAX does not write a program with a `jax.pure_callback` into its compilation cache,
so that each process would compile everything that steps C MuJoCo anew. Here the
function is a target of XLA's foreign function interface instead: the program holds
only its name and is cached; the process that loads it brings the function. On a GPU
it also spares the arrays that `jax.pure_callback` makes of its arguments on the way.

XLA checks the version of the interface when a target is registered; where it refuses,
or on other devices, `jax.pure_callback` takes over.

Ctrl-C and other early ends of the process need care, because XLA runs programs on
threads of its own and knows nothing of Python: see `_end_programs`, `_interrupt`.
"""

import atexit
import ctypes
import functools
import signal
import threading
import traceback
import types
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend
import numpy as np

from rlfb_jax.physics.xla_ffi import (
  INTERNAL,
  METADATA,
  CallFrame,
  CudaMemory,
  ErrorArguments,
  Handler,
  HostMemory,
  Memory,
  MetadataExtension,
)

_VERSION = (0, 3)  # Of the interface, see `xla_ffi`.
_RETRY_SECONDS = 0.01  # Until an interrupt that came in a host call comes again.

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
  handler = Handler(handle)
  _handlers.append(handler)
  try:
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform=platform)
  except Exception:  # XLA raises several kinds; all mean: not this version.
    return False
  return True


def _memories() -> dict[str, Memory]:
  """How buffers are reached, by XLA's names of the platforms that programs run on.

  Empty where some run on a device whose buffers cannot be reached.
  """
  memories: dict[str, Memory] = {'cpu': HostMemory()}
  if jax.default_backend() == 'cpu':
    return memories
  # Platforms of other makers may be on a machine with NVIDIA's driver.
  if 'cuda' not in jax.extend.backend.get_backend().platform_version:
    return {}
  try:
    memories['CUDA'] = CudaMemory(ctypes.CDLL('libcuda.so.1'))
  except OSError:
    return {}
  return memories


def _handle(
  function: Callable[..., tuple[np.ndarray, ...]], memory: Memory, call: Any
) -> int | None:
  """Answers one call of XLA: None for success, or the address of an error.

  Args:
    function: what to call.
    memory: where the buffers of the call are.
    call: pointer to its `CallFrame`.
  """
  frame: CallFrame = call[0]
  if frame.extension and frame.extension[0].type == METADATA:
    extension = ctypes.cast(frame.extension, ctypes.POINTER(MetadataExtension))
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
    arguments = ErrorArguments(
      struct_size=ctypes.sizeof(ErrorArguments),
      message=message.encode(errors='replace'),
      code=INTERNAL,
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
