"""Settings that must stand before jax, MuJoCo or dm_control are imported."""

import os
import pathlib

_ROOT = pathlib.Path(__file__).resolve().parents[1]

# Most of the tests' time is compilation; a second run finds it done.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(_ROOT / '.jax_cache'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')
os.environ.setdefault('MPLBACKEND', 'Agg')  # Curves are drawn without a screen.

import jax  # noqa: E402
import jaxlib  # noqa: E402
import pytest  # noqa: E402
from jax._src import compiler  # noqa: E402

# Tests of MJX share a process with tests that start JAX before them.
from rlfb_jax.core.xla_flags import avoid_cpu_deadlock  # noqa: E402

avoid_cpu_deadlock()

# Tests compile for minutes and compute for seconds. What they assert holds of programs
# without optimisations as well: they get these, but for files marked `optimised`, whose
# programs are compiled as users' are. `pytest --optimised` does so for all.
_OPTION = 'jax_disable_most_optimizations'

# XLA's older emitters of fused loops, which need no MLIR, and one LLVM module a program
# halve what is left. JAX has no setting for them, and XLA aborts at flags that it does
# not know: with another jaxlib tests take longer, no more.
_EMITTERS: dict[str, bool | int] = {}
if jaxlib.__version__.startswith(('0.10.', '0.11.')):
  _EMITTERS['xla_cpu_parallel_codegen_split_count'] = 1
if jaxlib.__version__.startswith('0.10.'):
  _EMITTERS['xla_cpu_use_fusion_emitters'] = False


# Workers take whole files, and end together if the longest are not the last.
_FIRST = ('training', 'methods', 'bin', 'sweeps', 'benchmarks', 'envs', 'physics')


def pytest_addoption(parser):
  """Adds `--optimised`."""
  parser.addoption(
    '--optimised',
    action='store_true',
    help="compile all tests' programs as users' programs are; takes twice as long",
  )


def pytest_collection_modifyitems(items):
  """Puts the rooms with the longest files first."""
  order = {room: i for i, room in enumerate(_FIRST)}
  items.sort(key=lambda item: order.get(item.path.parent.name, len(order)))


@pytest.fixture(autouse=True, scope='module')
def _exact_products():
  """On accelerators, whose products of float32 are coarser unless told otherwise.

  References are in float64. Processes that a test starts choose for themselves.
  """
  if jax.default_backend() == 'cpu':
    yield
    return
  with jax.default_matmul_precision('float32'):
    yield


@pytest.fixture(autouse=True, scope='module')
def _quick_compilation(request):
  """Leaves out what compiles longest, in processes that a test starts, too."""
  marked = request.node.get_closest_marker('optimised')
  optimised = marked or request.config.getoption('--optimised')
  if optimised or jax.default_backend() != 'cpu':
    yield
    return
  # XLA reads its flags once: before those below, which are for other processes.
  jax.devices()
  flags = (f'--{name}={str(value).lower()}' for name, value in _EMITTERS.items())
  before = jax.config.values[_OPTION]
  jax.config.update(_OPTION, True)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv(_OPTION.upper(), 'true')
    patch.setenv('XLA_FLAGS', ' '.join([os.environ.get('XLA_FLAGS', ''), *flags]))
    if hasattr(compiler, 'get_compile_options'):
      patch.setattr(compiler, 'get_compile_options', _with_emitters)
    yield
  jax.config.update(_OPTION, before)


_compile_options = getattr(compiler, 'get_compile_options', None)


def _with_emitters(*args, **kwargs):
  options = _compile_options(*args, **kwargs)
  options.env_option_overrides = [*options.env_option_overrides, *_EMITTERS.items()]
  return options
