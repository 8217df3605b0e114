"""Numbers from the raw samples of `throughput.py`: rates, ratios, the bound."""

from collections.abc import Sequence
from typing import Any

import products
from measure import Summary, ratio_of_medians, ratio_of_rounds, summarize

Results = dict[str, Any]

# By whether the transposed operand is written to memory first.
PRODUCTS = ('products', 'products, transposed')


def rates(results: Results, name: str, task: str, seeds: int = 1) -> list[float]:
  """Environment steps per second of all seeds together, one value a round."""
  return [
    call['env_steps'] / call['seconds']
    for call in results['calls']
    if (call['name'], call.get('task'), call.get('seeds')) == (name, task, seeds)
    and 'round' in call
  ]


def bound(results: Results, task: str) -> float | None:
  """Environment steps per second that could be, None where it was not measured."""
  physics = rates(results, 'C physics', task)
  multiplied = [rates(results, name, task) for name in PRODUCTS]
  if not physics or not all(multiplied):
    return None
  fastest = max(summarize(values).median for values in multiplied)
  return products.bound(summarize(physics).median, 1.0 / fastest)


def ratio(
  above: Sequence[float], below: Sequence[float], same_rounds: bool = True
) -> Summary | None:
  """Median and range of a ratio; None without samples.

  Args:
    above: rates, one a round.
    below: rates, one a round.
    same_rounds: whether they took turns, and the ratio is one of each round.
      Otherwise the medians are divided, and the range is the widest possible.
  """
  if same_rounds:
    return ratio_of_rounds(above, below)
  if not above or not below:
    return None
  return ratio_of_medians(summarize(above), summarize(below))


def run_seconds(results: Results, method: str, all_passes: bool) -> float | None:
  """A whole run of one seed, put together from its parts; None without them.

  Args:
    results: of `throughput.py`.
    method: its name.
    all_passes: whether the reward model goes over its labels as often as it ever
      may in each session, or as often as it did here.
  """
  plan = results['runs'].get(method)
  learn = [c['seconds'] for c in calls(results, method) if 'round' in c]
  if plan is None or not learn:
    return None
  chunks = plan['total_env_steps'] // plan['chunk_steps'] - plan['pretrain_chunks']
  total = chunks * summarize(learn).median
  explore = [running(c) for c in calls(results, f'{method} explore')]
  if explore:
    total += plan['pretrain_chunks'] * explore[-1]
  sessions = calls(results, f'{method} session')
  total += sum(running(c) for c in sessions)
  if all_passes and sessions:
    fits = calls(results, 'reward passes')
    if not fits:
      return None
    one = running(fits[-1]) / fits[-1]['passes']
    asked = 0
    for call, labels in zip(sessions, plan['sessions'], strict=True):
      asked += labels
      share = asked / sum(plan['sessions'])
      total += one * share * max(0, plan['max_passes'] - call['passes'])
  return total


def calls(results: Results, name: str) -> list[dict[str, Any]]:
  """Calls at one seed on the main task."""
  wanted = name, results['tasks'][0], 1
  return [
    c for c in results['calls'] if (c['name'], c.get('task'), c.get('seeds')) == wanted
  ]


def running(call: dict[str, Any]) -> float:
  """Seconds without what was spent on compilation."""
  return call['seconds'] - call['compiling']
