"""Runs here compile for a minute and compute for a second."""

import jax
import pytest


@pytest.fixture(autouse=True, scope='package')
def _quick_compilation():
  """What is asserted here holds of unoptimised programs as well.

  Optimised ones are what the tests of environments, commands and benchmarks run.
  """
  before = jax.config.values['jax_disable_most_optimizations']
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', before)
