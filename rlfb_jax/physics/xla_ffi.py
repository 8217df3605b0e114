"""What XLA's foreign function interface hands over, and the arrays that are in it.

The structures are those of `xla/ffi/api/c_api.h`, version 0.3 (shipped in
`jax.ffi.include_dir()`), as far as they are read.
"""

import ctypes
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

METADATA = 1  # Extension type by which XLA asks for the version.
INTERNAL = 13  # Error code.
_DTYPES = {4: np.dtype(np.int32), 8: np.dtype(np.uint32), 11: np.dtype(np.float32)}

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


class MetadataExtension(ctypes.Structure):
  """Of a call in which XLA asks what the target is."""

  _fields_ = [('base', _Extension), ('metadata', ctypes.POINTER(_Metadata))]


class ErrorArguments(ctypes.Structure):
  """Of `Api.create_error`."""

  _fields_ = [*_HEAD, ('message', ctypes.c_char_p), ('code', _Int)]


class _DestroyArguments(ctypes.Structure):
  _fields_ = [*_HEAD, ('error', _Pointer)]


class _StreamArguments(ctypes.Structure):
  _fields_ = [*_HEAD, ('context', _Pointer), ('stream', _Pointer)]


_CreateError = ctypes.CFUNCTYPE(_Pointer, ctypes.POINTER(ErrorArguments))
_DestroyError = ctypes.CFUNCTYPE(None, ctypes.POINTER(_DestroyArguments))
GetStream = ctypes.CFUNCTYPE(_Pointer, ctypes.POINTER(_StreamArguments))


class Api(ctypes.Structure):
  """What a target may ask of XLA, as far as it is asked."""

  _fields_ = [
    *_HEAD,
    ('version', _Version),
    ('internal', _Pointer),
    ('create_error', _CreateError),
    ('explain_error', _Pointer),
    ('destroy_error', _DestroyError),
    ('register', _Pointer),
    ('get_stream', GetStream),
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


class CallFrame(ctypes.Structure):
  """As far as it is read; attributes and a future follow."""

  _fields_ = [
    *_HEAD,
    ('api', ctypes.POINTER(Api)),
    ('context', _Pointer),
    ('stage', _Int),
    ('args', _Buffers),
    ('results', _Buffers),
  ]


Handler = ctypes.CFUNCTYPE(_Pointer, ctypes.POINTER(CallFrame))


class Memory(Protocol):
  """How the buffers of a call become arrays, and arrays its results."""

  def read(self, frame: CallFrame) -> list[np.ndarray]:
    """The arguments, read-only."""

  def write(self, frame: CallFrame, outputs: Sequence[np.ndarray]) -> None:
    """Fills the results."""


class HostMemory:
  """Buffers that this process can read."""

  def read(self, frame: CallFrame) -> list[np.ndarray]:
    """The arguments, read-only: views that end with the call."""
    return _views(frame.args, writeable=False)

  def write(self, frame: CallFrame, outputs: Sequence[np.ndarray]) -> None:
    """Fills the results."""
    for view, output in zip(_views(frame.results), outputs, strict=True):
      view[...] = output


class CudaMemory:
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

  def read(self, frame: CallFrame) -> list[np.ndarray]:
    """The arguments, read-only copies."""
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

  def write(self, frame: CallFrame, outputs: Sequence[np.ndarray]) -> None:
    """Fills the results, and waits until they are there."""
    stream = self._enter(frame)
    kept = []
    for (buffer, shape, dtype), output in zip(
      _contents(frame.results), outputs, strict=True
    ):
      # Copied only where it is of another type, shape or order.
      array = np.ascontiguousarray(np.broadcast_to(output, shape), dtype)
      kept.append(array)
      if array.nbytes:
        to, start = _Pointer(buffer.data), _Pointer(array.ctypes.data)
        self._do('cuMemcpyHtoDAsync_v2', to, start, _Size(array.nbytes), stream)
    self._do('cuStreamSynchronize', stream)

  def _enter(self, frame: CallFrame) -> Any:
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
