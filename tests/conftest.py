"""Settings that must stand before jax, MuJoCo or dm_control are imported."""

import os
import pathlib

_ROOT = pathlib.Path(__file__).resolve().parents[1]

# Most of the tests' time is compilation; a second run finds it done.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(_ROOT / '.jax_cache'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')
os.environ.setdefault('MPLBACKEND', 'Agg')  # Curves are drawn without a screen.

import jax  # noqa: E402
import pytest  # noqa: E402

# Tests of MJX share a process with tests that start JAX before them.
from rlfb_jax.core.xla_flags import avoid_cpu_deadlock  # noqa: E402

avoid_cpu_deadlock()

# Rooms whose tests compile for minutes and compute for seconds. What they assert holds
# of unoptimised programs as well; optimised ones are what the other rooms test.
_QUICKLY_COMPILED = ('benchmarks', 'bin', 'methods', 'sweeps', 'training')
_OPTION = 'jax_disable_most_optimizations'


@pytest.fixture(autouse=True, scope='module')
def _quick_compilation(request):
  """Leaves out LLVM's costliest passes, in processes that a test starts, too."""
  if request.path.parent.name not in _QUICKLY_COMPILED:
    yield
    return
  before = jax.config.values[_OPTION]
  jax.config.update(_OPTION, True)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv(_OPTION.upper(), 'true')
    yield
  jax.config.update(_OPTION, before)
