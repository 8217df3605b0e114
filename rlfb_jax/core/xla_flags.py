"""A setting of XLA that must stand before JAX starts."""

import importlib.metadata
import os

# Under this scheduler of XLA's CPU backend, two independent batched LAPACK calls
# (Cholesky, for one) of one program can each wait for the other's threads for ever,
# on a machine with two cores. MJX and covariance factors run into it.
_SCHEDULER_FLAG = 'xla_cpu_enable_concurrency_optimized_scheduler'

# XLA aborts the process at a flag that it does not know, so only releases are
# named that were seen to take it.
_JAXLIB_WITH_FLAG = ('0.10.',)


def avoid_cpu_deadlock() -> None:
  """Turns the scheduler off for this process through `XLA_FLAGS`.

  Does nothing where the user has set the flag, either way, or where jaxlib is of
  a release that may not know it. Without effect once JAX has made its first array.
  """
  flags = os.environ.get('XLA_FLAGS', '')
  if _SCHEDULER_FLAG in flags:
    return
  if importlib.metadata.version('jaxlib').startswith(_JAXLIB_WITH_FLAG):
    os.environ['XLA_FLAGS'] = f'{flags} --{_SCHEDULER_FLAG}=false'.strip()
