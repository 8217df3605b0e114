"""Python functions that compiled CPU programs call by name.

JAX does not write a program with a `jax.pure_callback` into its compilation cache,
so that each process would compile everything that steps C MuJoCo anew. Here the
function is a target of XLA's foreign function interface instead: the program holds
only its name and is cached; the process that loads it brings the function.

The structures below are those of `xla/ffi/api/c_api.h`, version 0.3 (shipped in
`jax.ffi.include_dir()`). XLA checks the version when a target is registered; where
it refuses, or on other devices than CPUs, `jax.pure_callback` takes over.
"""

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

_VERSION = (0, 3)
_METADATA = 1  # Extension type by which XLA asks for the version.
_INTERNAL = 13  # Error code.
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
  call = jax.ffi.ffi_call(name, results, vmap_method='broadcast_all')
  return call(*args)


def _register(name: str, function: Callable[..., tuple[np.ndarray, ...]]) -> bool:
  """Whether XLA has a CPU target of this name, now or from before."""
  if name not in _targets:
    handler = _Handler(lambda frame: _handle(function, frame[0]))
    try:
      jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform='cpu')
      _targets[name] = _Target(handler)
    except Exception:  # XLA raises several kinds; all mean: not this version.
      _targets[name] = _Target(None)
  return _targets[name].handler is not None


def _handle(
  function: Callable[..., tuple[np.ndarray, ...]], frame: _CallFrame
) -> int | None:
  """Answers one call of XLA: None for success, or the address of an error."""
  if frame.extension and frame.extension[0].type == _METADATA:
    extension = ctypes.cast(frame.extension, ctypes.POINTER(_MetadataExtension))
    metadata = extension[0].metadata[0]
    metadata.version.major, metadata.version.minor = _VERSION
    metadata.traits = 0
    return None
  try:
    outputs = function(*_views(frame.args, writeable=False))
    for view, output in zip(_views(frame.results), outputs, strict=True):
      view[...] = output
  except Exception as error:
    arguments = _ErrorArguments(
      struct_size=ctypes.sizeof(_ErrorArguments),
      message=f'{type(error).__name__}: {error}'.encode(),
      code=_INTERNAL,
    )
    return frame.api[0].create_error(ctypes.byref(arguments))
  return None


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
