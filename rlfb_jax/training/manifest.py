"""What a run was made with, so that its numbers can be read years later.

Host names and absolute paths stay out, and user names with them: manifests are shared
with results.
"""

import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp

from rlfb_jax.training import files

FORMAT_VERSION = 2  # 2: with `sessions`.

_PACKAGES = (
  'rlfb-jax',
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'tensorstore',
  'numpy',
  'mujoco',
  'mujoco-mjx',
  'dm-control',
  'brax',
)
# What compiles and multiplies on accelerators, under any version of CUDA.
_ACCELERATOR_PACKAGES = re.compile(
  r'jax-(?:cuda|rocm)\d+-(?:plugin|pjrt)|libtpu|warp-lang'
  r'|nvidia-(?:cublas|cuda-nvcc|cudnn|cusolver|nccl|nvjitlink)(?:-cu\d+)?'
)
_DRIVER = pathlib.Path('/proc/driver/nvidia/version')


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
    'xla_flags': [_without_folders(f) for f in os.environ.get('XLA_FLAGS', '').split()],
    'precision': {'float': str(jnp.zeros(()).dtype)},
  }


def write(path: pathlib.Path, command: Sequence[str] | None = None) -> None:
  """Writes the manifest of a new run, as indented JSON."""
  files.write_json(path, {**make(command), 'sessions': []})


def add_session(
  path: pathlib.Path, env_steps: int, command: Sequence[str] | None = None
) -> list[str]:
  """Notes that a process works on the run from here on.

  A session has the entries of `make`, and `env_steps`: of each seed, at its start.

  Args:
    path: the run's manifest.
    env_steps: where this process starts.
    command: as in `make`.

  Returns:
    What is not as it was in the session before, in words; results may then differ in
    their last bits from those of a run that went through.
  """
  record = json.loads(path.read_text())
  sessions = record.setdefault('sessions', [])
  now = {'env_steps': env_steps, **make(command)}
  before = sessions[-1] if sessions else now
  sessions.append(now)
  files.write_json(path, record)
  old, new = before['versions'], now['versions']
  changes = [
    f'{name} {old.get(name)} is {new.get(name)} now'
    for name in {**new, **old}
    if old.get(name) != new.get(name)
  ]
  changes += [
    f'{name} {before[name]} is {now[name]} now'
    for name in ('git', 'processor', 'device', 'xla_flags', 'precision')
    if before.get(name, now[name]) != now[name]
  ]
  return changes


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
  # Only flags: the folder of a job may have the sign in its name.
  named = argument.startswith('-')
  flag, equals, value = argument.partition('=') if named else ('', '', argument)
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
  return found | _accelerator_versions()


def _accelerator_versions() -> dict[str, str]:
  found: dict[str, str] = {}
  for package in metadata.distributions():
    # A folder that an interrupted installation left behind has no name.
    (written, *_) = package.metadata.get_all('Name') or ['']
    name = re.sub(r'[-_.]+', '-', written).lower()
    if _ACCELERATOR_PACKAGES.fullmatch(name):
      found.setdefault(name, package.version)  # As on the path, the first one counts.
  if not any(name.startswith('jax-') for name in found):
    # Other packages brought them; what computes here does not use them.
    found = {n: v for n, v in found.items() if not n.startswith('nvidia-')}
  driver = _driver_version()
  if driver is not None:
    found['nvidia-driver'] = driver
  return dict(sorted(found.items()))


def _driver_version() -> str | None:
  try:
    text = _DRIVER.read_text()
  except OSError:
    return None
  # `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 ...`
  found = re.search(r'^NVRM version:.*?\s(\d+(?:\.\d+)+)\s', text)
  return found and found[1]
