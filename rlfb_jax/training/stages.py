"""What an iteration of the loop is made of, and in which order.

  session     people are asked and the reward is fitted, where labels are due
  event:NAME  compiled pieces that come now and then, such as MRN's outer step
  chunk:NAME  acting and learning; the clock's steps move on at the end of it
  diagnose    what is watched beside learning

Which of them come is a function of the steps alone, so a position in a run is two
numbers: steps, and stages done.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlfb_jax.core.types import Metrics
from rlfb_jax.methods.algorithm import Algorithm
from rlfb_jax.training.program import Compiled

SESSION, EVENT, CHUNK, DIAGNOSE = 'session', 'event', 'chunk', 'diagnose'


class Stage(NamedTuple):
  """One compiled program's turn.

  Attributes:
    kind: SESSION, EVENT, CHUNK or DIAGNOSE.
    name: of the event, or the phase of the chunk.
  """

  kind: str
  name: str = ''

  def __str__(self) -> str:
    return f'{self.kind}:{self.name}' if self.name else self.kind


def stages_at(algorithm: Algorithm, env_steps: int) -> list[Stage]:
  """The stages of the iteration that starts at `env_steps`, in order."""
  stages = []
  if algorithm.session is not None and algorithm.request(env_steps) is not None:
    stages.append(Stage(SESSION))
  stages += [Stage(EVENT, name) for name in algorithm.events_due(env_steps)]
  stages.append(Stage(CHUNK, algorithm.phase(env_steps)))
  if algorithm.diagnose is not None:
    stages.append(Stage(DIAGNOSE))
  return stages


def run_stage(
  algorithm: Algorithm, functions: Compiled, stage: Stage, env_steps: int, state: Any
) -> tuple[Any, Metrics]:
  """Runs one stage to its end.

  Args:
    algorithm: the method.
    functions: the method compiled.
    stage: one of `stages_at(algorithm, env_steps)`.
    env_steps: at the start of the iteration.
    state: of all seeds; donated.

  Returns:
    The state and the stage's metrics, computed and not only started: the host can
    leave the run here.
  """
  if stage.kind == SESSION:
    request = algorithm.request(env_steps)
    assert request is not None
    assert functions.session is not None
    wanted = jax.tree.map(jnp.int32, request.wanted)
    out = functions.session(state, wanted, request.strategies)
  elif stage.kind == EVENT:
    out = functions.events[stage.name](state)
  elif stage.kind == CHUNK:
    out = functions.chunks[stage.name](state)
  else:
    assert functions.diagnose is not None
    out = functions.diagnose(state)
  state, metrics = jax.block_until_ready(out)
  return state, metrics
