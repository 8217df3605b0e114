"""Where a run is, as the host knows it: the part of a run that no program holds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass
class Clock:
  """The host's side of a run.

  An iteration of the loop is a few stages (see `stages.py`) that end in one line of
  metrics; a run can be left and taken up between any two of them.

  Attributes:
    env_steps: of each seed, at the start of the iteration.
    done: stages of the iteration that are done.
    pending: metrics of these stages, which wait for their line; arrays [S, ...].
    seconds: that the run has taken, over all of its sessions.
    line_seconds: the same at the last line.
    score: mean return on the last line that had one: of the evaluation where the run
      is evaluated on the way, else of training episodes.
  """

  env_steps: int = 0
  done: int = 0
  pending: dict[str, Any] = dataclasses.field(default_factory=dict)
  seconds: float = 0.0
  line_seconds: float = 0.0
  score: float | None = None

  @property
  def position(self) -> tuple[int, int]:
    """Steps and stages: grows as the run goes on."""
    return self.env_steps, self.done

  def to_json(self) -> dict[str, Any]:
    """Plain values that `from_json` turns into the same bits."""
    record = dataclasses.asdict(self)
    record['pending'] = {n: _pack(np.asarray(v)) for n, v in self.pending.items()}
    return record

  @classmethod
  def from_json(cls, record: Mapping[str, Any]) -> 'Clock':
    """The clock that `to_json` has written."""
    pending = {n: _unpack(v) for n, v in record['pending'].items()}
    return cls(**{**record, 'pending': pending})


def _pack(array: np.ndarray) -> dict[str, Any]:
  """Hexadecimal: NaNs and the last digit survive."""
  return {
    'dtype': str(array.dtype),
    'shape': array.shape,
    'bytes': np.ascontiguousarray(array).tobytes().hex(),
  }


def _unpack(packed: Mapping[str, Any]) -> np.ndarray:
  flat = np.frombuffer(bytes.fromhex(packed['bytes']), packed['dtype'])
  return flat.reshape(packed['shape'])
