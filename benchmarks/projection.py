"""Whole runs put together from measured parts: what is measured, what multiplied.

Measured are a step of each phase, an update, a pass of the reward fit, a relabelling
and a bi-level step; the run's own timetable says how often each comes.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import update_workloads

from rlfb_jax import methods
from rlfb_jax.bin import train
from rlfb_jax.core.replay import CHUNK_ROWS

# Name in the tables -> preset.
RUNS = {'sac': 'sac', 'pebble': 'pebble_walker', 'mrn': 'mrn_walker'}


@dataclasses.dataclass(frozen=True)
class Plan:
  """How often each part comes in a run.

  Attributes:
    steps: environment steps by phase.
    catch_up: updates at once after the first session.
    passes: of the reward fit in a session, at most.
    sessions: environment steps at which they come.
    bilevel: environment steps at which bi-level steps come.
  """

  steps: Mapping[str, int]
  catch_up: int
  passes: int
  sessions: tuple[int, ...]
  bilevel: tuple[int, ...]


def make_plan(preset: str) -> Plan:
  """The timetable of the published run, from the algorithm itself."""
  config = update_workloads.parse(preset, None)
  algorithm = methods.make(config, train.make_environment(config))
  chunk = algorithm.steps_per_chunk
  clock = range(0, config.total_env_steps, chunk)
  phases = [algorithm.phase(t) for t in clock]
  return Plan(
    steps={phase: chunk * phases.count(phase) for phase in dict.fromkeys(phases)},
    catch_up=config.replay.catch_up_updates if config.recipe.ask else 0,
    passes=config.reward.max_passes,
    sessions=tuple(t for t in clock if algorithm.request(t) is not None),
    bilevel=tuple(t for t in clock if 'outer_step' in algorithm.events_due(t)),
  )


class Costs(NamedTuple):
  """What the parts take, seconds.

  Attributes:
    steps: of the method's environment step, by phase.
    update: one update, as in the burst after the first session.
    fit_pass: one pass of the reward fit.
    relabel_chunk: relabelling of `CHUNK_ROWS` transitions.
    bilevel: a bi-level step without relabelling.
  """

  steps: Mapping[str, float]
  update: float
  fit_pass: float
  relabel_chunk: float
  bilevel: float


def project(plan: Plan, costs: Costs) -> dict[str, float]:
  """Seconds of a whole run by what they are spent on, and `total`.

  Sessions are reckoned dear: with all the passes that they may make, and one more
  for choosing the queries. Relabelling counts the transitions held at the time.
  """

  def relabel(clock: tuple[int, ...]) -> float:
    return costs.relabel_chunk * sum(math.ceil(t / CHUNK_ROWS) for t in clock)

  parts: dict[str, Any] = {
    'steps': sum(count * costs.steps[phase] for phase, count in plan.steps.items()),
    'catch-up': plan.catch_up * costs.update,
    'reward fits': len(plan.sessions) * (plan.passes + 1) * costs.fit_pass,
    'relabelling after sessions': relabel(plan.sessions),
    'bi-level steps': len(plan.bilevel) * costs.bilevel,
    'relabelling after bi-level steps': relabel(plan.bilevel),
  }
  return parts | {'total': sum(parts.values())}
