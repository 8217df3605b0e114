"""Tables from the raw samples of `throughput.py`, as Markdown.

python benchmarks/report.py benchmarks/results/throughput.json
"""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from figures import PRODUCTS, Results, bound, calls, rates, ratio, run_seconds, running
from measure import Summary, summarize

# Methods that PPO learns in; `updates.py` times the others.
LABELS = {'ppo': 'PPO', 'rbrl': 'RbRL', 'rbrl_kl': 'RbRL-KL'}

# What the project promises, on two cores.
SHARE_OF_BOUND, OVER_SB3, OVER_BRAX, OVER_ONE_SEED = 0.6, 2.5, 1.4, 1.2
RBRL_OVER_PPO, KL_OVER_PPO = 0.9, 0.6
COLD_SECONDS, CACHED_SECONDS = 40, 15

NOTES = (
  "PyTorch's MKL picks slow kernels on AMD processors, so that SB3 does better beside"
  ' us on an Intel one.',
  "brax 0.14.2's trainers stop on jax 0.10, where `jax.device_put_replicated` is gone;"
  ' a one-line stand-in repairs them. Its physics is easier: MJX with few solver'
  ' iterations.',
  'SB3 runs without normalised observations, which ours and brax have.',
  'The bound is C physics on all cores and then the matrix products of all epochs at'
  ' the rate that XLA reaches for these shapes, the faster of two ways to write them;'
  " the policy's products in the rollout are not in it.",
)


def markdown(results: Results) -> str:
  """All tables that the samples give."""
  task, *others = results['tasks']
  parts = [
    _circumstances(results),
    f'## {task}',
    _speed(results, task),
    _targets(results, task),
    _whole_run(results),
    _steady(results),
    _cold(results),
    _tasks(results, others),
  ]
  parts.append('\n'.join(f'- {note}' for note in NOTES))
  return '\n\n'.join(part for part in parts if part) + '\n'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """A Markdown table; empty without rows."""
  if not rows:
    return ''
  lines = [head, ['---'] * len(head), *rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def circumstances(title: str, results: Results, device: str = '') -> list[str]:
  """How every report begins: its title, when and how it was made, and where.

  Args:
    title: of the report.
    results: raw samples, with the entries of a manifest, `load_average` and, once all
      is measured, `minutes`.
    device: what computed beside the processor.
  """
  versions = ', '.join(f'{name} {v}' for name, v in results['versions'].items() if v)
  where = f'{device}; ' if device else ''
  return [
    f'# {title}',
    f'`{" ".join(results["command"])}`, {results["started"]},'
    f' {results.get("minutes", 0)} minutes.',
    f'{where}{results["processor"]}, {results["cores"]} cores, load average'
    f' {results["load_average"]:.2f} before. {versions}.',
  ]


def _circumstances(results: Results) -> str:
  versions = dict(results['versions'])
  for facts in results['baselines'].values():
    versions |= facts.get('versions', {})
  sizes = ', '.join(f'{name} {value}' for name, value in results['sizes'].items())
  return '\n\n'.join(
    [
      *circumstances('Throughput', {**results, 'versions': versions}),
      f'Sizes: {sizes}. Medians [smallest-largest] over rounds in which everything'
      ' takes its turn; steps are control steps, of all environments and seeds'
      ' together.',
    ]
  )


def _speed(results: Results, task: str) -> str:
  best = bound(results, task)
  names = list(dict.fromkeys(c['name'] for c in results['calls'] if 'round' in c))
  seeds = sorted({c['seeds'] for c in results['calls'] if 'round' in c})
  rows = []
  for name in names:
    for number in seeds:
      found = rates(results, name, task, number)
      if not found:
        continue
      share = ''
      if best and (name in LABELS or name in results['baselines']):
        share = f'{summarize(found).median / best:.0%}'
      elif name in PRODUCTS:
        flops = results['flops_per_env_step'][task]
        share = f'{summarize(found).median * flops / 1e9:.0f} GFLOP/s'
      row = [LABELS.get(name, name), str(number), summarize(found).text(), share]
      rows.append(row)
  if best:
    rows.append(['**bound**', '1', f'{best:,.0f}', ''])
  for name, facts in results['baselines'].items():
    if 'failed' in facts:
      done = len(rates(results, name, task))
      rounds = f'{done} round' + 's' * (done > 1)
      what = f'ended after {rounds}' if done else 'not measured'
      rows.append([name, '1', f'{what}: {facts["failed"]}', ''])
  return table(('', 'seeds', 'steps/s', 'of the bound'), rows)


def _targets(results: Results, task: str) -> str:
  """What was promised, and what came of it."""
  ppo = rates(results, 'ppo', task)
  best = bound(results, task)
  found: list[tuple[str, Summary | None, float | None]] = [
    ('PPO / bound', ratio(ppo, [best] * len(ppo)) if best else None, SHARE_OF_BOUND),
    ('PPO / SB3 PPO', ratio(ppo, rates(results, 'SB3 PPO', task)), OVER_SB3),
    ('PPO / brax PPO', ratio(ppo, rates(results, 'brax PPO', task)), OVER_BRAX),
    ('RbRL / PPO', ratio(rates(results, 'rbrl', task), ppo), RBRL_OVER_PPO),
    ('RbRL-KL / PPO', ratio(rates(results, 'rbrl_kl', task), ppo), KL_OVER_PPO),
  ]
  more = sorted({c.get('seeds', 1) for c in results['calls']} - {1})
  for number in more:
    for name, label in LABELS.items():
      together = rates(results, name, task, number)
      one = rates(results, name, task)
      goal = OVER_ONE_SEED if name == 'ppo' else None
      found.append(
        (f'{label}, {number} seeds / 1', ratio(together, one, same_rounds=False), goal)
      )
      if name != 'ppo':
        goal = RBRL_OVER_PPO if name == 'rbrl' else KL_OVER_PPO
        against = ratio(together, rates(results, 'ppo', task, number))
        found.append((f'{label} / PPO, {number} seeds', against, goal))
  rows = [
    [name, value.text(2), *_verdict(value.median, goal)]
    for name, value, goal in found
    if value is not None
  ]
  return table(('ratio', 'measured', 'wanted', ''), rows)


def _verdict(value: float, goal: float | None) -> tuple[str, str]:
  if goal is None:
    return '', ''
  return f'at least {goal}', 'yes' if value >= goal else 'no'


def _whole_run(results: Results) -> str:
  """Runs as long as the default, sessions and pre-training included."""
  rows = []
  ppo = run_seconds(results, 'ppo', False)
  for method, plan in results['runs'].items():
    for all_passes in (False, True) if plan['sessions'] else (False,):
      seconds = run_seconds(results, method, all_passes)
      if seconds is None:
        continue
      what = {True: 'all passes in each session', False: 'sessions as measured'}
      rows.append(
        [
          LABELS[method],
          what[all_passes] if plan['sessions'] else '',
          f'{plan["total_env_steps"] / seconds:,.0f}',
          f'{ppo / seconds:.2f}' if ppo else '',
        ]
      )
  body = table(('whole run, 1 seed', '', 'steps/s', 'of PPO'), rows)
  sessions = [
    c
    for c in results['calls']
    if c['name'].endswith(' session') and c['task'] == results['tasks'][0]
  ]
  if not sessions:
    return body
  took = summarize([running(c) for c in sessions if c['seeds'] == 1])
  passes = summarize([c['passes'] for c in sessions if c['seeds'] == 1])
  said = (
    f'A labelling session at one seed took {took.text(2)} s and {passes.text()}'
    ' passes of the reward model.'
  )
  fits = calls(results, 'reward passes')
  if fits:
    one = running(fits[-1]) / fits[-1]['passes']
    said += f' A pass over all labels of the budget takes {one:.2f} s.'
  return f'{body}\n\n{said}'


def _steady(results: Results) -> str:
  """Compilation and memory once everything has run."""
  lines = []
  timed_calls = [c for c in results['calls'] if 'round' in c and 'compiled' in c]
  if timed_calls:
    compiled = sum(c['compiled'] for c in timed_calls)
    lines.append(
      f'Programs compiled in {len(timed_calls)} timed calls: {compiled} (wanted: 0).'
    )
  seen: set[tuple[Any, ...]] = set()
  for call in results['calls']:
    if 'warmup' in call or 'strategy' in call:
      key = call['name'], call['task'], call['seeds'], call.get('strategy')
      if key in seen and call['compiled']:
        lines.append(f'A later call of {key[0]} compiled {call["compiled"]} programs.')
      seen.add(key)
  memory = results['memory_mib']
  if memory:
    said = ', '.join(f'{mib:,.0f}' for mib in memory)
    lines.append(
      f'Resident memory after each round (a chunk of every method): {said} MiB;'
      f' it grew by {memory[-1] - memory[0]:.0f} MiB over {len(memory) - 1} rounds.'
    )
  return '\n'.join(lines)


def _cold(results: Results) -> str:
  """What the time to the first metrics is made of."""
  stages = ('interpreter', 'imports', 'trace', 'lower', 'compile', 'run')
  rows = []
  for call in results['calls']:
    if not call['name'].startswith('cold start'):
      continue
    limit = CACHED_SECONDS if call['cached'] else COLD_SECONDS
    rows.append(
      [
        LABELS[call['name'].split()[-1]],
        'filled' if call['cached'] else 'empty',
        f'{call["seconds"]:.1f}',
        f'{limit}',
        'yes' if call['seconds'] < limit else 'no',
        *(f'{call["stages"][stage]:.1f}' for stage in stages),
        f'{call["stages"]["cache_hits"]} of {call["stages"]["programs"]}',
        f'{call["stages"]["env_steps"]:,}',
      ]
    )
  counts = 'programs from the cache', 'steps of the first chunk'
  return table(('cold start', 'cache', 's', 'under', '', *stages, *counts), rows)


def _tasks(results: Results, tasks: Sequence[str]) -> str:
  """A row for each further task and number of seeds."""
  rows = []
  for task in tasks:
    best = bound(results, task)
    timed = [c for c in results['calls'] if c.get('task') == task and 'round' in c]
    for seeds in sorted({c['seeds'] for c in timed}):
      names = ('C physics', 'environment, jit', 'rollout with policy', *LABELS)
      found = {name: rates(results, name, task, seeds) for name in names}
      cells = [summarize(values).text() if values else '' for values in found.values()]
      ppo = found['ppo']
      share = f'{summarize(ppo).median / best:.0%}' if best and ppo else ''
      rows.append([task, str(seeds), *cells, f'{best:,.0f}' if best else '', share])
  head = ('task', 'seeds', 'C physics', 'in jit', 'rollout', *LABELS.values())
  return table((*head, 'bound of one seed', 'PPO / bound'), rows)


def read_samples(argv: Sequence[str], script: str, usual: str, holds: str) -> Results:
  """The one file that a report is made from.

  Args:
    argv: command line, the file.
    script: that reads it.
    usual: an example of such a file, below `benchmarks/results`.
    holds: an entry that every such file has.

  Raises:
    SystemExit: with a sentence, if there is not one file or it holds something else.
  """
  hint = f'try python benchmarks/{script} benchmarks/results/{usual}.'
  if len(argv) != 1 or not pathlib.Path(argv[0]).is_file():
    given = ' '.join(argv) or 'an empty command line'
    raise SystemExit(f'{script}: {given} is not one file of raw samples; {hint}')
  try:
    results = json.loads(pathlib.Path(argv[0]).read_text())
  except ValueError:
    results = None
  if not isinstance(results, dict) or holds not in results:
    raise SystemExit(f'{script}: {argv[0]} holds no samples; {hint}')
  return results


def main(argv: Sequence[str]) -> None:
  """Prints the tables of a file."""
  results = read_samples(argv, 'report.py', 'throughput.json', 'calls')
  print(markdown(results), end='')


if __name__ == '__main__':
  main(sys.argv[1:])
