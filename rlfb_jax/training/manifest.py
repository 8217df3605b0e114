"""What a run was made with, so that its numbers can be read years later.

Host names, user names and paths stay out: manifests are shared with results.
"""

import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp

FORMAT_VERSION = 1

_PACKAGES = (
  'rlfb-jax',
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'numpy',
  'mujoco',
  'mujoco-mjx',
  'dm-control',
  'brax',
)


def make(command: Sequence[str] | None = None) -> dict[str, Any]:
  """A run's circumstances as plain JSON values.

  Args:
    command: command line as given; this process's own by default. Of absolute
      paths only the last part is kept.
  """
  command = list(sys.argv if command is None else command)
  device = jax.devices()[0]
  return {
    'format_version': FORMAT_VERSION,
    'started': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'command': [_without_folders(argument) for argument in command],
    'git': git_revision(),
    'versions': {'python': platform.python_version(), **_versions()},
    'system': f'{platform.system()} {platform.machine()}',
    'processor': processor(),
    'cores': os.cpu_count(),
    'device': {
      'platform': device.platform,
      'kind': device.device_kind,
      'count': jax.device_count(),
    },
    'precision': {
      'float': str(jnp.zeros(()).dtype),
      'matmul': jax.config.values['jax_default_matmul_precision'] or 'default',
    },
  }


def write(path: pathlib.Path, command: Sequence[str] | None = None) -> None:
  """Writes the manifest as indented JSON."""
  path.write_text(json.dumps(make(command), indent=2) + '\n')


def git_revision(folder: pathlib.Path | None = None) -> dict[str, Any] | None:
  """Commit of the source and whether it was changed since; None without git.

  Args:
    folder: where to look; the package's own source by default.
  """
  package = pathlib.Path(__file__).resolve().parents[1]
  folder = folder or package
  try:
    revision = _git(folder, 'rev-parse', 'HEAD')
    # An installed package may lie inside a repository that is not its own.
    if folder == package and not _git(folder, 'ls-files', '__init__.py'):
      return None
    return {'revision': revision, 'changed': bool(_git(folder, 'status', '-s', '-uno'))}
  except (OSError, subprocess.SubprocessError):
    return None


def processor() -> str:
  """The processor's model name; speeds mean little without it."""
  try:
    for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
      if line.startswith('model name'):
        return line.partition(':')[2].strip()
  except OSError:
    pass
  return platform.processor() or platform.machine()


def _without_folders(argument: str) -> str:
  flag, equals, value = argument.rpartition('=')
  if value.startswith(('/', '~')):
    value = os.path.basename(value.rstrip('/'))
  return f'{flag}{equals}{value}'


def _git(folder: pathlib.Path, *args: str) -> str:
  return subprocess.run(
    ['git', *args], cwd=folder, capture_output=True, text=True, check=True, timeout=10
  ).stdout.strip()


def _versions() -> dict[str, str | None]:
  found: dict[str, str | None] = {}
  for package in _PACKAGES:
    try:
      found[package] = metadata.version(package)
    except metadata.PackageNotFoundError:
      found[package] = None
  return found
