"""Counts that differ between the runs of one program.

Arrays with an entry for each of n things are shaped by n, and all runs of a program
have the same shapes. So where n differs, arrays have room for the largest n, the
`capacity`, and a run's own n, the `number`, says which entries are meant. A plain int
is both: then nothing is padded, and nothing of this is in the program.
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, eq=False)
class Padded:
  """A count within a program that several runs share.

  Attributes:
    number: of this run, [] int32, traced.
    capacity: the largest number of all runs of the program.
  """

  number: jax.Array
  capacity: int

  def __sub__(self, other: int) -> 'Padded':
    """The count without `other` of its things, such as thresholds between classes."""
    return Padded(self.number - other, self.capacity - other)


Count = int | Padded


def number(count: Count) -> int | jax.Array:
  """How many there are."""
  return count.number if isinstance(count, Padded) else count


def capacity(count: Count) -> int:
  """How many arrays have room for; static."""
  return count.capacity if isinstance(count, Padded) else count


def fill(count: Count, values: jax.Array, filler: bool | float) -> jax.Array:
  """Puts `filler` behind the entries that are meant; changes nothing of a plain count.

  Args:
    count: n.
    values: [..., capacity].
    filler: one that is no integer makes integers float32.
  """
  if not isinstance(count, Padded):
    return values
  return jnp.where(jnp.arange(count.capacity) < count.number, values, filler)
