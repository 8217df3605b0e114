"""Kinds of questions that people are asked, each a record of pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from rlfb_jax.core.types import Key, Metrics
from rlfb_jax.feedback.archive import Archive
from rlfb_jax.feedback.clip_queries import EnsembleReward
from rlfb_jax.feedback.schedule import PlannedSession

Sizes = tuple[int, int, int]  # Observation, action, pose.


class Questions(NamedTuple):
  """One kind of question.

  Attributes:
    init: `() -> store` of answers.
    propose: `(archive, members, store, key, strategy, wanted []) -> queries`, as many
      as the largest session asks; the first `wanted` are asked now.
    teach: `(queries, key) -> answers`, the scripted teacher.
    append: `(store, queries, answers, wanted [], env_steps []) -> (store, metrics)`.
    sessions: when they are asked, and how many.
    memory_bytes: of the store, for one seed.
  """

  init: Callable[[], Any]
  propose: Callable[[Archive, EnsembleReward, Any, Key, str, jax.Array], Any]
  teach: Callable[[Any, Key], Any]
  append: Callable[..., tuple[Any, Metrics]]
  sessions: tuple[PlannedSession, ...]
  memory_bytes: int
