"""Tables from the raw samples of `updates.py`, as Markdown.

python benchmarks/update_report.py benchmarks/results/updates.json
"""

import itertools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from measure import Summary, name_of, ratio_of_medians, ratio_of_rounds, summarize
from report import circumstances, read_samples, table

Results = dict[str, Any]

# Reference figures, measured on another machine with two cores: milliseconds per SAC
# update at 256x2 with batch 256 and 1024x2 with batch 1024; low and high where it
# varied.
REFERENCE_SIZES = {'small': '256x2, batch 256', 'walker': '1024x2, batch 1024'}
BRAX = 'brax SAC'
REFERENCE_UPDATES = (
  (BRAX, (2.2, 2.2), (82, 82), 'brax 0.14.2 on jax'),
  ('sbx SAC', (2.2, 2.2), (98, 98), 'sbx on jax'),
  ('SB3 SAC', (9, 9), (235, 235), 'stable-baselines3 on PyTorch'),
  ("MRN's authors", (6, 9), (212, 252), 'released code of Liu et al. 2022, PyTorch'),
  ("MRN's authors", (4.5, 4.5), (101, 101), "the same, MKL's fast path"),
)
# Milliseconds of MRN's released code at walker's sizes: PyTorch's MKL as it is, and
# with MKL's fast path on processors that are not Intel's.
REFERENCE_PARTS = (
  ('bi-level step', 645, 288),
  ('pass over 100 labels', 160, 84),
  ('relabelling 100,000', 625, 296),
)
# Of one seed, where the name of what was timed does not say it.
MANY_LABELS = {
  'sac': 'SAC update',
  'pebble': 'PEBBLE step',
  'bi-level': 'bi-level step, nothing relabelled',
}
ALIKE = 0.2  # Machines on which brax takes as long, to within this share.


def markdown(results: Results) -> str:
  """All tables that the samples give."""
  chapters = {
    'One update': _updates(results),
    'One environment step with its update': _iterations(results),
    "MRN's bi-level step": _bilevel(results),
    'The reward model': _reward(results),
    'Many seeds beside one': _many_seeds(results),
    'Whole runs on walker': _runs(results),
    'Beside reference figures of another machine': _reference(results),
  }
  parts = [f'## {title}\n\n{text}' for title, text in chapters.items() if text]
  return '\n\n'.join([_circumstances(results), *parts]) + '\n'


def summary(results: Results, size: str, name: str) -> Summary | None:
  """Milliseconds per unit; None where it was not measured."""
  for group in results['groups']:
    if group['size'] == size and name in group['seconds']:
      return summarize([1e3 * s for s in group['seconds'][name]])
  return None


def ratio(results: Results, size: str, above: str, below: str) -> Summary | None:
  """Of two names; round by round where they took turns, else of medians."""
  for group in results['groups']:
    seconds = group['seconds']
    if group['size'] == size and above in seconds and below in seconds:
      return ratio_of_rounds(seconds[above], seconds[below])
  one, other = summary(results, size, above), summary(results, size, below)
  if one is None or other is None:
    return None
  return ratio_of_medians(one, other)


def gflops(results: Results, size: str, name: str) -> float | None:
  """Rate of products, 1e9 floating-point operations per second."""
  found, flops = summary(results, size, name), results['flops'].get(f'{size} {name}')
  return flops / found.median / 1e6 if found and flops else None


def run_seconds(results: Results) -> dict[str, dict[str, float]]:
  """Whole runs put together from measured parts, seconds by method and part.

  Empty where a part is missing. Sessions are counted with all passes that they may
  make, which is the most that they can take; choosing and answering the questions
  is left out.
  """
  main, plans = results['main_size'], results['plans']
  ms = {}
  wanted = ('sac', 'sac step', 'pebble', 'random actions', 'pebble explore', 'bi-level')
  sizes = sorted(results['relabelled'])
  names = [f'relabelling {rows:,}' for rows in sizes]
  for name in (*wanted, 'pass over 100 labels', *names):
    found = summary(results, main, name)
    if found is None:
      return {}
    ms[name] = found.median
  curve = [0.0, *(ms[name] for name in names)]

  def relabel(rows: list[int]) -> float:
    beyond = np.maximum(1.0, np.array(rows) / sizes[-1])
    return float(np.sum(beyond * np.interp(rows, [0, *sizes], curve)))

  runs = {}
  for method, plan in plans.items():
    on_truth = method == 'sac'
    step = ms['sac step'] if on_truth else ms['pebble']
    learns = plan['total'] - plan['random'] - plan['explore']
    parts = {
      'random actions': plan['random'] * ms['random actions'],
      'exploration': plan['explore'] * ms['pebble explore'],
      'learning': learns * step,
      'catching up': plan['catch_up'] * ms['sac'],
      'reward passes': plan['passes'] * len(plan['sessions']) * _pass(results),
      'relabelling': relabel(plan['sessions']) + relabel(plan['outer']),
      'bi-level steps': len(plan['outer']) * ms['bi-level'],
    }
    runs[method] = {name: value / 1e3 for name, value in parts.items()}
  return runs


def _pass(results: Results) -> float:
  """A pass over the labels of a run, at most 100: one padded minibatch, always."""
  found = summary(results, results['main_size'], 'pass over 100 labels')
  assert found is not None
  return found.median


def _circumstances(results: Results) -> str:
  sizes = '; '.join(f'{name}: {text}' for name, text in results['sizes'].items())
  return '\n\n'.join(
    [
      *circumstances('Off-policy updates', results),
      f'Sizes: {sizes}. Milliseconds, medians [smallest-largest] over rounds in which'
      ' what is compared takes turns. Shares are the time of the plain float32 matrix'
      ' products of the same shapes, counted as in `update_products.py`, over the time'
      ' of the whole; brax runs the actor once more for the temperature, which is its'
      ' time and not its share. Programs compiled while the clock ran:'
      f' {sum(group["compiled"] for group in results["groups"])} (wanted: 0).',
    ]
  )


def _cell(value: Summary | None, digits: int = 2) -> str:
  return value.text(digits) if value else ''


def _percent(value: Summary | None) -> str:
  if value is None:
    return ''
  return f'{value.median:.0%} [{value.low:.0%}-{value.high:.0%}]'


def _updates(results: Results) -> str:
  rows = []
  for size, text in results['sizes'].items():
    many = name_of('sac', results['seeds'])
    for name in ('sac', 'brax sac', 'ddpg', many):
      took = summary(results, size, name)
      if took is None:
        continue
      agent = 'ddpg' if name == 'ddpg' else 'sac'
      alone = f'products {agent}'
      rate = gflops(results, size, alone)
      share = ratio(results, size, alone, name)
      row = [size, text, name, took.text(2), _cell(summary(results, size, alone))]
      rows.append([*row, f'{rate:.0f}' if rate else '', _percent(share)])
  head = ('', 'networks', 'agent', 'ms per update of a seed', 'products alone, ms')
  return table((*head, 'GFLOP/s', 'share of the rate'), rows)


def _iterations(results: Results) -> str:
  rows = []
  for size in results['sizes']:
    step, pebble = (summary(results, size, name) for name in ('sac step', 'pebble'))
    if step is None or pebble is None:
      continue
    against = ratio(results, size, 'pebble', 'sac step')
    fresh = summary(results, size, 'pebble, fresh labels')
    dearer = ratio(results, size, 'pebble, fresh labels', 'pebble')
    row = [size, step.text(2), pebble.text(2), _cell(against)]
    rows.append([*row, _cell(fresh), _cell(dearer)])
  head = ('', 'SAC, ms', 'PEBBLE, ms', 'PEBBLE / SAC')
  body = table((*head, 'labels asked anew, ms', 'against stored ones'), rows)
  return '\n\n'.join(part for part in (body, _relabelling(results)) if part)


def _relabelling(results: Results) -> str:
  """What a run of PEBBLE pays for stored labels and for those asked anew."""
  main, runs = results['main_size'], run_seconds(results)
  stored, fresh = (
    summary(results, main, name) for name in ('pebble', 'pebble, fresh labels')
  )
  if not runs or stored is None or fresh is None:
    return ''
  plan, parts = results['plans']['pebble'], runs['pebble']
  learns = plan['total'] - plan['random'] - plan['explore']
  anew = learns * (fresh.median - stored.median) / 1e3
  return (
    f'Over a whole run of PEBBLE on {main} asking anew at every draw would cost'
    f' {anew:,.0f} s; storing, and rewriting all that is held after each of'
    f' {len(plan["sessions"])} sessions, costs {parts["relabelling"]:,.0f} s.'
  )


def _bilevel(results: Results) -> str:
  rows = []
  for size in results['sizes']:
    took = summary(results, size, 'bi-level')
    bare = summary(results, size, 'bi-level, nothing measured')
    if took is None or bare is None:
      continue
    names = {
      n: None for g in results['groups'] if g['size'] == size for n in g['seconds']
    }
    for name in names:
      if name.startswith('bi-level') and not name.endswith(_seeds_of(results)):
        multiple = ratio(results, size, name, 'sac')
        found = summary(results, size, name)
        rows.append([size, name, _cell(found), _cell(multiple)])
    share = 1 - bare.median / took.median
    rows.append(
      [size, 'share of measuring the supervised gradient', f'{share:.0%}', '']
    )
  return table(('', '', 'ms', 'of a SAC update'), rows)


def _reward(results: Results) -> str:
  rows = []
  for size, (name, (alone, multiple)) in itertools.product(
    results['sizes'], results['reward_products'].items()
  ):
    took, product = summary(results, size, name), summary(results, size, alone)
    if took is None or product is None:
      continue
    share = multiple * product.median / took.median
    rate = gflops(results, size, alone)
    rows.append([size, name, took.text(1), f'{multiple * product.median:.1f}'])
    rows[-1] += [f'{rate:.0f}' if rate else '', f'{share:.0%}']
  body = table(('', '', 'ms', 'products, ms', 'GFLOP/s', 'share of the rate'), rows)
  said = (
    'Products are measured for one minibatch or one chunk of rows and multiplied by'
    ' the real pairs or rows; the padding of a minibatch is part of our time only.'
  )
  return f'{body}\n\n{said}' if rows else ''


def _seeds_of(results: Results) -> str:
  """How names end of what many seeds did in one program."""
  return name_of('', results['seeds'])


def _many_seeds(results: Results) -> str:
  """Each seed of many beside one alone."""
  rows = []
  for group in results['groups']:
    size = group['size']
    for name in group['seconds']:
      alone = name.removesuffix(_seeds_of(results))
      against = ratio(results, size, name, alone)
      if alone == name or against is None:
        continue
      # Of the same rounds as the ratio, where there are such.
      here = {'groups': [group]}
      one = summary(here, size, alone) or summary(results, size, alone)
      many = summary(here, size, name)
      label = MANY_LABELS.get(alone, alone)
      rows.append([size, label, _cell(one), _cell(many), _cell(against)])
  head = ('', '', 'one seed, ms', f'of {results["seeds"]}, ms each', 'of one')
  # Older samples have no such steps.
  steps = results.get('steps_of_many', {})
  said = (
    'On CPU the seeds of one program take turns, a whole call each, and every call'
    " copies each one's state in and out, its replay buffer too. Steps of PEBBLE in a"
    f' call, 1000 in training: {", ".join(f"{n} ({s})" for s, n in steps.items())}.'
  )
  return '\n\n'.join([table(head, rows), *[said] * bool(steps)]) if rows else ''


def _runs(results: Results) -> str:
  runs = run_seconds(results)
  if not runs:
    return ''
  total = {method: sum(parts.values()) for method, parts in runs.items()}
  names = list(next(iter(runs.values())))
  rows = [
    [
      method,
      *(f'{parts[name]:,.0f}' for name in names),
      f'{total[method] / 3600:.2f}',
      f'{total[method] / total["sac"]:.3f}',
    ]
    for method, parts in runs.items()
  ]
  plan = results['plans']
  counts = '; '.join(
    f'{method}: {len(p["sessions"])} sessions, {len(p["outer"])} bi-level steps'
    for method, p in plan.items()
  )
  said = (
    'Measured: one step of each kind, one update, one pass, one bi-level step, and'
    f' relabelling {" and ".join(f"{n:,}" for n in results["relabelled"])} transitions.'
    f' Multiplied: by the counts of the presets ({counts}), each relabelling at the'
    ' number of transitions held then, between the measured points along a line. Each'
    ' session makes all passes that it may, the most that it can take. Left out:'
    ' choosing and answering questions, evaluation, compilation.'
  )
  head = ['seconds of', *names, 'hours', 'of sac']
  return f'{table(head, rows)}\n\n{said}'


def _reference(results: Results) -> str:
  """This run beside figures of others; empty where its sizes are not theirs."""
  if results['sizes'].get('walker') != REFERENCE_SIZES['walker']:
    return ''
  return '\n\n'.join([_machines(results), _beside_updates(results), _beside(results)])


def _machines(results: Results) -> str:
  """Whose figures these are, and how fast that machine is beside this one."""
  said = (
    'Reference figures are those of public code on another machine with two cores (from'
    " this project's specification), not of this run; an empty cell was not measured."
  )
  ratios = _brax_ratios(results)
  if not ratios:
    return f'{said} brax was not measured here, so that machines cannot be compared.'
  times = ' and '.join(f'{r:.2f} times ({size})' for size, r in ratios.items())
  if all(abs(r - 1) <= ALIKE for r in ratios.values()):
    return f'{said} brax took {times} its reference here.'
  return (
    f'**The machines are not alike**: brax took {times} its reference here; scale by'
    f' that to compare. {said}'
  )


def _brax_ratios(results: Results) -> dict[str, float]:
  """What brax took here over what it took there, by size."""
  ((_, *figures, _),) = (row for row in REFERENCE_UPDATES if row[0] == BRAX)
  ratios = {}
  for (size, text), (low, high) in zip(REFERENCE_SIZES.items(), figures, strict=True):
    found = summary(results, size, 'brax sac')
    if found is not None and results['sizes'].get(size) == text:
      ratios[text] = found.median / (0.5 * (low + high))
  return ratios


def _beside_updates(results: Results) -> str:
  small, large = (
    summary(results, size, 'sac') if results['sizes'].get(size) == text else None
    for size, text in REFERENCE_SIZES.items()
  )
  rows = [['this', _cell(small), _cell(large, 0), 'this run']]
  for name, *figures, source in REFERENCE_UPDATES:
    cells = [f'{a:g}' if a == b else f'{a:g}-{b:g}' for a, b in figures]
    rows.append([name, *cells, source])
  return table(('ms per SAC update', *REFERENCE_SIZES.values(), 'source'), rows)


def _beside(results: Results) -> str:
  rows = []
  for name, plain, fast in REFERENCE_PARTS:
    found = summary(results, 'walker', name.replace(' step', ''))
    rows.append([name, _cell(found, 0), str(plain), str(fast)])
  head = ('ms, walker', 'this', "MRN's authors", "authors, MKL's fast path")
  return table(head, rows)


def main(argv: Sequence[str]) -> None:
  """Prints the tables of a file."""
  results = read_samples(argv, 'update_report.py', 'updates.json', 'groups')
  print(markdown(results), end='')


if __name__ == '__main__':
  main(sys.argv[1:])
