"""The benchmarks are scripts that import each other; here they can be imported too."""

import pathlib
import sys

import jax
import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / 'benchmarks'
sys.path[:0] = [str(FOLDER), str(FOLDER / 'baselines')]


@pytest.fixture(autouse=True, scope='package')
def _quick_compilation():
  """Nobody reads the numbers of these runs, so that fast programs are a waste."""
  before = jax.config.values['jax_disable_most_optimizations']
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', before)
