"""Files of results that several processes may add to."""

import contextlib
import pathlib
from collections.abc import Iterator

from rlfb_jax.training import files

LOCKS = pathlib.Path(__file__).parents[1] / 'runs'  # Nobody adds what is there to git.
PATIENCE = 60.0  # Seconds to wait for who saves the same file.


@contextlib.contextmanager
def alone(path: pathlib.Path, otherwise: str) -> Iterator[None]:
  """Keeps others from a file while it is read and written, or they would lose results.

  Args:
    path: of the file.
    otherwise: what to do where another process does not let go of it.

  Raises:
    SystemExit: with a sentence, if one does not.
  """
  LOCKS.mkdir(parents=True, exist_ok=True)
  with files.locked(LOCKS / f'{path.stem}.lock', PATIENCE) as free:
    if not free:
      raise SystemExit(
        f'another process has been saving {path.name} for {PATIENCE:.0f} s; {otherwise}'
        ' when it has ended.'
      )
    yield
