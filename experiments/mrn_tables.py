"""MRN's results on the DeepMind Control tasks: curves, ablation of the budget, Table 1.

  python experiments/mrn_tables.py --scale=quick --rows=walker_walk
  python experiments/mrn_tables.py --scale=small --rows=walker_walk
  python experiments/mrn_tables.py --scale=paper --shard=3/16   # on many machines

Rows `walker_walk`, `cheetah_run` and `quadruped_walk` are the curves (and, on walker,
Table 1: the error of the learned Q); `walker_walk_400` to `_2000` the ablation of the
budget, whose 100 labels are those of `walker_walk`. The control `mrn_zero` is MRN whose
outer gradient is zero.

`paper` has the published length, networks and budgets (1M steps, ten seeds: 26 to 65
hours a seed on two cores, by the machine), and our corrected methods. MRN takes its
outer step by an Adam of its own at a step size of 1e-4, beside the update of the agent;
the released one takes it by the supervised fit's Adam, moments included, in the
update's place, which is preset `mrn_code` but for the place.

`small` has one environment and an update a step too, but networks of 256 x 2, batches
of 256 and sessions every 5,000 steps, for 100,000 steps and three seeds; `quick` 60,000
steps of four environments, an update every other one and sessions every 3,000 (2,500,
rounded up to whole chunks). At both, SURF's fit takes a twentieth of its published
steps a session and draws 10 unlabelled pairs a label where 100 are published.
"""

from collections.abc import Mapping

import published
import tables
from outcomes import Outcome, cell, difference
from tables import Row, Size

from rlfb_jax.bin.flags import expand

NAME = 'mrn'
METHODS = ('sac', 'pebble', 'surf', 'rune', 'mrn', 'mrn_zero')
TASKS = ('walker_walk', 'cheetah_run', 'quadruped_walk')
BUDGETS = (400, 1000, 2000)  # Beside the 100 labels of the curves.
ARMS = {m: f'method={m}' for m in METHODS[:-1]} | {
  'mrn_zero': 'method=mrn mrn_zero_gradient=true'
}
# What a method's own preset sets beside what all methods of a figure share: at every
# length, and where the length is the published one.
OWN = {'cheetah_run': {'surf': 'surf_threshold=0.999'}}
OWN_AT_LENGTH = {'sac': 'replay_random_steps=5000'}


def _arms(more: Mapping[str, str]) -> tuple[str, ...]:
  return tuple(f'--arm={m}: {ARMS[m]} {more.get(m, "")}'.rstrip() for m in METHODS)


# The published 1000 steps of SURF's fit per session, each on 640 pairs a label, would
# take longer than all the rest.
SHORT = (
  '--eval_interval=0',
  '--surf_reward_update=50',
  '--surf_unlabelled_per_label=10',
)
SHORT_SURF = (
  "SURF's fit took a twentieth of its published steps a session here, on a tenth of the"
  ' unlabelled pairs; its published number is of the whole fit.'
)
ROWS = [
  *(
    Row(
      task,
      task,
      f'mrn/{task}.flags',
      arguments=(),
      quick=(*_arms(OWN.get(task, {})), *SHORT),
      paper=_arms({**OWN.get(task, {}), **OWN_AT_LENGTH}),
    )
    for task in TASKS
  ),
  *(
    Row(
      f'walker_walk_{budget}',
      'walker_walk',
      f'mrn/walker_walk_{budget}.flags',
      ('--grid=method=pebble,surf,mrn',),
      SHORT,
    )
    for budget in BUDGETS
  ),
]
# Sessions follow each other 8 times as fast, so that a run a seventeenth as long still
# has all of them.
FAST = (*expand(['--preset=fast_replay']), '--pairs_session_interval=2500')
SIZES = {
  'paper': Size(flags=(), seeds=10, steps={}),
  'small': Size(
    flags=(
      '--sac_hidden_size=256',
      '--sac_batch_size=256',
      '--pairs_session_interval=5000',
    ),
    seeds=3,
    steps=dict.fromkeys(TASKS, 100_000),
  ),
  'quick': Size(
    flags=FAST,
    seeds=3,
    steps=dict.fromkeys(TASKS, 60_000),
  ),
  'tiny': Size(
    flags=(*FAST, '--eval_episodes=2'),
    seeds=2,
    steps=dict.fromkeys(TASKS, 16_000),
  ),
}


def lay_out(outcomes: list[Outcome], shortened: bool = False) -> list[str]:
  """Three tables of Markdown, and the differences between methods.

  Args:
    outcomes: all that there are.
    shortened: whether the runs are not of the published length.
  """
  surf = any(outcome.arm['method'] == 'surf' for outcome in outcomes)
  return [
    *_returns(outcomes),
    *(['', SHORT_SURF] if shortened and surf else []),
    '',
    *_differences(outcomes),
    '',
    *_q_errors(outcomes),
    '',
    *_by_budget(outcomes),
  ]


def _returns(outcomes: list[Outcome]) -> list[str]:
  lines = ['**Returns**: deterministic evaluation at the end, mean and 95 % interval.']
  lines += ['', '| task | method | steps, seeds | return | published | Q error |']
  lines += ['|---|---|---|---|---|---|']
  for task in TASKS:
    for method in METHODS:
      found = _find(outcomes, task, method)
      if found is not None:
        theirs = published.PREFERENCE_RETURNS.get((task, method), '')
        if method == 'sac':
          theirs = published.SAC.get((task, 1_000_000), '')
        lines.append(
          f'| {task} | {method} | {found.env_steps:,}, {len(found.seeds)} |'
          f' {cell(found.evaluation)} | {theirs} | {cell(found.q_error)} |'
        )
  said = (
    'Published: 500,000 to 1,000,000 steps, five seeds (sd), from PPE; on'
    ' quadruped_walk with 1000 labels, where MRN and so all of ours have 700; of sac'
    ' 1,000,000 steps, three seeds, from pytorch_sac.'
  )
  return [*lines, '', said]


def _differences(outcomes: list[Outcome]) -> list[str]:
  lines = []
  for first, second in (('mrn', 'pebble'), ('mrn', 'mrn_zero'), ('surf', 'pebble')):
    for task in TASKS:
      both = _find(outcomes, task, first), _find(outcomes, task, second)
      gap = difference(*both, 'evaluation')
      if gap:
        lines.append(f'- {task}: {first} minus {second}, paired: {gap}')
  return lines


def _q_errors(outcomes: list[Outcome]) -> list[str]:
  lines = ['**Error of the learned Q** on walker (MRN, Table 1), standardised.', '']
  lines += ['| method | ours | published |', '|---|---|---|']
  for method, theirs in published.MRN_Q_ERROR.items():
    found = _find(outcomes, 'walker_walk', method)
    if found is not None:
      lines.append(f'| {method} | {cell(found.q_error)} | {theirs} |')
  return lines


def _by_budget(outcomes: list[Outcome]) -> list[str]:
  lines = ['**Return by budget** on walker; published as curves only.', '']
  lines += ['| labels | PEBBLE | SURF | MRN |', '|---|---|---|---|']
  for budget in (100, *BUDGETS):
    row = 'walker_walk' if budget == 100 else f'walker_walk_{budget}'
    cells = [_find(outcomes, row, m) for m in ('pebble', 'surf', 'mrn')]
    if any(cells):
      texts = [cell(c and c.evaluation) for c in cells]
      lines.append(f'| {budget} | {" | ".join(texts)} |')
  return lines


def _find(outcomes: list[Outcome], row: str, method: str) -> Outcome | None:
  wanted = {
    'method': method.removesuffix('_zero'),
    'mrn_zero_gradient': str(method == 'mrn_zero'),
  }
  return tables.find(outcomes, row, lambda arm: arm == wanted)


def main() -> int:
  options = tables.arguments(__doc__.split('\n')[0], ROWS, SIZES, NAME)
  flags = ('method', 'mrn_zero_gradient')
  found, code = tables.make(NAME, ROWS, SIZES, options, flags)
  if not found:
    return code
  tables.write(NAME, options, lay_out(found, shortened=options.scale != 'paper'))
  panels = {task: {m: _find(found, task, m) for m in METHODS} for task in TASKS}
  notes = ('Bands: 95 % intervals. 100 labels of an oracle; 700 on quadruped.',)
  tables.draw(NAME, options, panels, notes)
  return code


if __name__ == '__main__':
  raise SystemExit(main())
