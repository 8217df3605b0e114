"""In which precision accelerators multiply matrices."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

# As `jax.default_matmul_precision` names them, exact first.
PRECISIONS = ('float32', 'tensorfloat32', 'bfloat16')

P = ParamSpec('P')
T = TypeVar('T')


def with_precision(function: Callable[P, T], precision: str) -> Callable[P, T]:
  """The same function, whose products of float32 matrices have this precision.

  Left to themselves, recent GPUs round the operands to 10 bits (tensorfloat32) and TPUs
  to 7 (bfloat16), which physics does not survive. Products that ask for a precision of
  their own keep it. On CPU, where all are exact, nothing is done.

  Args:
    function: traced when it is called, or in a `jax.jit` around it.
    precision: one of `PRECISIONS`. What a device lacks is the next exacter one it has:
      on NVIDIA GPUs bfloat16 is tensorfloat32.
  """

  @functools.wraps(function)
  def precise(*args: P.args, **kwargs: P.kwargs) -> T:
    if jax.default_backend() == 'cpu':
      return function(*args, **kwargs)
    with jax.default_matmul_precision(precision):
      return function(*args, **kwargs)

  return precise
