"""Candidate pairs: two independent pieces of recent behaviour each."""

from typing import NamedTuple

import jax

from rlfb_jax.core.types import Key
from rlfb_jax.feedback import archive as archive_lib
from rlfb_jax.feedback.archive import Archive, SegmentIndex
from rlfb_jax.feedback.clips import Clip


class CandidatePairs(NamedTuple):
  """P pairs of segments.

  Attributes:
    first: leaves [P, H, ...].
    second: leaves [P, H, ...].
  """

  first: Clip
  second: Clip

  @property
  def size(self) -> int:
    """Number of pairs P."""
    return self.first.size


class PairPool(NamedTuple):
  """Candidates, and what the scripted teacher alone may read; leaves [P, ...].

  Attributes:
    candidates: the pairs.
    first_rewards: true rewards of the first segments, [P, H].
    second_rewards: of the second ones, [P, H].
    valid: False where the archive held no segment, [P] bool.
  """

  candidates: CandidatePairs
  first_rewards: jax.Array
  second_rewards: jax.Array
  valid: jax.Array

  def take(self, rows: jax.Array) -> 'PairPool':
    """The pairs in `rows`, [k]."""
    return jax.tree.map(lambda x: x[rows], self)


def draw_pairs(
  key: Key,
  archive: Archive,
  num_pairs: int,
  segment_steps: int,
  recent: int | None = None,
) -> PairPool:
  """Pairs whose sides are drawn independently, uniformly over all segments held.

  The sides may overlap, as in the public code of PEBBLE. That code draws an episode
  and then a start in it, from finished episodes only and never the last start; here
  the running episodes take part too, and every segment is as likely as any other.

  Args:
    key: randomness, consumed.
    archive: what the agent did.
    num_pairs: P.
    segment_steps: H, margins included.
    recent: only segments within so many newest steps of each environment; None: all.
  """
  index = archive_lib.sample(key, archive, 2 * num_pairs, segment_steps, recent)

  def side(rows: slice) -> tuple[Clip, jax.Array]:
    half = SegmentIndex(*(x[rows] for x in index))
    return archive_lib.gather(archive, half, segment_steps)

  first, first_rewards = side(slice(num_pairs))
  second, second_rewards = side(slice(num_pairs, None))
  return PairPool(
    candidates=CandidatePairs(first, second),
    first_rewards=first_rewards,
    second_rewards=second_rewards,
    valid=index.valid[:num_pairs] & index.valid[num_pairs:],
  )
