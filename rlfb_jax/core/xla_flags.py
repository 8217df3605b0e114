"""A setting of XLA that programs with LAPACK calls need on small CPUs."""

import importlib.metadata
import os
import sys
import warnings

# Under this scheduler of XLA's CPU backend, two independent batched LAPACK calls
# (Cholesky, for one) of one program can each wait for the other's threads for ever,
# on a machine with two cores. MJX runs into it. The package's own programs hold no
# LAPACK call, and keep the scheduler: without it PPO's updates take 1.4 times as long.
_SCHEDULER_FLAG = 'xla_cpu_enable_concurrency_optimized_scheduler'

# XLA aborts the process at a flag that it does not know, so only releases are
# named that were seen to take it.
_JAXLIB_WITH_FLAG = ('0.10.', '0.11.')


def avoid_cpu_deadlock() -> None:
  """Turns the scheduler off for this process through `XLA_FLAGS`.

  Does nothing where the user has set the flag, either way, or where jaxlib is of
  a release that may not know it. Warns where JAX has started already, which is too
  late.
  """
  flags = os.environ.get('XLA_FLAGS', '')
  if _SCHEDULER_FLAG in flags:
    return
  if not importlib.metadata.version('jaxlib').startswith(_JAXLIB_WITH_FLAG):
    return
  os.environ['XLA_FLAGS'] = f'{flags} --{_SCHEDULER_FLAG}=false'.strip()
  if _cpu_has_started():
    warnings.warn(
      'JAX started before the mjx engine or the mesh was made, whose programs may hang'
      ' on few CPU cores; make the environment before the first array, or start'
      f' with XLA_FLAGS=--{_SCHEDULER_FLAG}=false.',
      stacklevel=2,
    )


def _cpu_has_started() -> bool:
  """Whether JAX already holds a CPU backend; False where it does not tell."""
  bridge = sys.modules.get('jax._src.xla_bridge')
  backends = getattr(bridge, '_backends', None) or {}
  return list(backends) == ['cpu']
