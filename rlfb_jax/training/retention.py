"""Which checkpoints stay."""

from collections.abc import Mapping, Sequence
from typing import Any

from orbax.checkpoint import checkpoint_managers


class NewestAndBest(checkpoint_managers.PreservationPolicy):
  """Keeps the newest few and the one of the highest score."""

  def __init__(self, newest: int, scores: Mapping[int, float | None]):
    """Binds the rule.

    Args:
      newest: how many stay for being new.
      scores: step -> score, None where there is none; read whenever asked.
    """
    self._newest = newest
    self._scores = scores

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any = None
  ) -> Sequence[bool]:
    """One answer a checkpoint; they come oldest first."""
    steps = [checkpoint.step for checkpoint in checkpoints]
    scores = {s: self._scores.get(s) for s in steps}
    known = {s: score for s, score in scores.items() if score is not None}
    kept = set(sorted(steps)[-self._newest :])
    if known:
      kept.add(max(known, key=lambda s: (known[s], s)))
    return [step in kept for step in steps]
