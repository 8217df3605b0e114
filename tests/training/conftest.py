"""Disks that are full."""

import contextlib
import resource

import pytest


@pytest.fixture
def small_files():
  """`with small_files(largest)`: no file grows beyond so many bytes, as on a full disk.

  Only the number of the error is another.
  """

  @contextlib.contextmanager
  def limit(largest):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
      yield
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, before)

  return limit
