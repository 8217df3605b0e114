"""Unknown names, answered with the name that was probably meant."""

import difflib
from collections.abc import Iterable


def suggest(name: str, known: Iterable[str]) -> str | None:
  """The known name nearest to `name` in spelling, or None where none is near."""
  known = list(known)
  folded = {k.lower().replace('-', '_'): k for k in known}
  near = difflib.get_close_matches(
    name.lower().replace('-', '_'), list(folded), n=1, cutoff=0.6
  )
  return folded[near[0]] if near else None


def check_known(what: str, name: str, known: Iterable[str]) -> None:
  """Raises ValueError in one sentence if `name` is none of the known ones.

  Args:
    what: what is named, as the user wrote it, e.g. `--task` or `preset`.
    name: the name given.
    known: all names there are.
  """
  known = list(known)
  if name in known:
    return
  near = suggest(name, known)
  hint = f'did you mean {near}?' if near else f'there are {", ".join(known)}.'
  raise ValueError(f'{what}={name} is unknown; {hint}')
