"""From the start of a process to the first line of metrics."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from workers import ROOT

_CHILD = pathlib.Path(__file__).parent / 'cold_start_child.py'


def cold_start(
  flags: Sequence[str],
  cache: pathlib.Path,
  timeout: float,
  cached_from: float = 0.5,
) -> dict[str, Any]:
  """Starts a training and ends it after its first chunk.

  Args:
    flags: of rlfb-train.
    cache: folder of compiled programs; an empty one is filled.
    timeout: seconds after which it is given up.
    cached_from: seconds of compilation from which a program is kept, as the Makefile
      has it.

  Returns:
    Seconds: `total`, and what it is made of: `interpreter`, `imports`, `trace`,
    `lower`, `compile` (or taken from the cache; they may overlap), and `run`, the
    rest, which is the first chunk. Also `programs` that were needed, how many came
    from the cache (`cache_hits`), and `env_steps` taken.

  Raises:
    RuntimeError: if the training fails; with its last words.
  """
  with tempfile.TemporaryDirectory() as folder:
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get('PYTHONPATH')) if p)
    environment = {
      **os.environ,
      'PYTHONPATH': path,
      'JAX_COMPILATION_CACHE_DIR': str(cache),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': str(cached_from),
    }
    done = subprocess.run(
      [
        sys.executable,
        str(_CHILD),
        str(time.monotonic()),
        *flags,
        '--eval_episodes=0',
        f'--run_dir={folder}/run',
      ],
      env=environment,
      capture_output=True,
      text=True,
      timeout=timeout,
    )
  if done.returncode:
    said = done.stderr.strip().splitlines()
    raise RuntimeError(said[-1] if said else 'The training ended without a word.')
  return json.loads(done.stdout.splitlines()[-1])
