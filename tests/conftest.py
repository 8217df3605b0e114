"""Settings that must stand before jax, MuJoCo or dm_control are imported."""

import os
import pathlib

_ROOT = pathlib.Path(__file__).resolve().parents[1]

# Most of the tests' time is compilation; a second run finds it done.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(_ROOT / '.jax_cache'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')
os.environ.setdefault('MPLBACKEND', 'Agg')  # Curves are drawn without a screen.

# Tests of MJX share a process with tests that start JAX before them.
from rlfb_jax.core.xla_flags import avoid_cpu_deadlock  # noqa: E402

avoid_cpu_deadlock()
