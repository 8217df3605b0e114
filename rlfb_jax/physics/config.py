"""Which engine moves the bodies, and how."""

import dataclasses
from typing import Any

from rlfb_jax.core.config import Options, option


@dataclasses.dataclass(frozen=True)
class PhysicsOptions(Options):
  """Choice of engine and its settings."""

  engine: str = option(
    'auto',
    "What moves the bodies: native (C MuJoCo on the host's cores), mjx (compiled for "
    'the device), or auto: native on CPU, mjx on GPU and TPU.',
    choices=('auto', 'native', 'mjx'),
  )
  impl: str = option(
    'jax',
    'Implementation inside mjx: jax, or warp (NVIDIA GPUs, needs the extra).',
    choices=('jax', 'warp'),
  )
  solver: str = option(
    'benchmark',
    "Constraint solver's effort in mjx: benchmark (the model's own settings), "
    'trimmed (sooner, and nearly always the same in float32) or fast (sooner still, '
    'with different physics; the walker noticeably).',
    choices=('benchmark', 'trimmed', 'fast'),
  )
  num_threads: int = option(
    0, 'Threads that step native simulations; 0 means one a core.', low=0
  )

  def engine_settings(self) -> dict[str, Any]:
    """These fields alone, as `envs.make` takes them, of a part that has others, too."""
    return {f.name: getattr(self, f.name) for f in dataclasses.fields(PhysicsOptions)}
