"""Reinforcement learning from feedback in JAX, compiled end to end."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from importlib.metadata import version

  from rlfb_jax.bin.launch import train
  from rlfb_jax.training.export import load_policy

  __version__ = version('rlfb-jax')

__all__ = ['__version__', 'load_policy', 'train']

# Name -> the module that it comes from.
_HOMES = {
  'load_policy': 'rlfb_jax.training.export',
  'train': 'rlfb_jax.bin.launch',
}


def __getattr__(name: str) -> Any:
  """What is public, on first use: importing the package loads nothing else."""
  if name == '__version__':
    from importlib.metadata import version

    return version('rlfb-jax')
  if name in _HOMES:
    return getattr(importlib.import_module(_HOMES[name]), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  """Public names beside those that are loaded."""
  return sorted({*globals(), *__all__})
