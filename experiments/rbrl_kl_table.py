"""RbRL-KL's tables: six tasks, n = 3 to 6 classes, RbRL and RbRL-KL.

  python experiments/rbrl_kl_table.py --scale=quick --rows=cartpole_swingup
  python experiments/rbrl_kl_table.py --scale=paper --shard=3/8 --max_rows=10
  python experiments/rbrl_kl_table.py --scale=paper --draw_only

`paper` has the published length, networks and budgets (4M steps, ten seeds: four to
nine days on two cores, by the machine, two to four and a half hours a cell), and our
corrected methods: the boundaries of the classes lie midway between two predictions
where the public code has them on the lower one, the policy's noise is that of single
steps where the public code holds it, and RbRL-KL has the corrected defaults of preset
`rbrl_kl`, not the printed ones of `paper_literal`. `quick` has a sixteenth of the steps
with three seeds and the preset `fast`. Runs are kept in `--out` and never repeated. The
raw numbers and the table beside the published one go to `results/tables/`.

A row is two jobs, one a method: all n and seeds share a program, as far as memory
allows (it halves those of `quadruped_walk` at the scale of the paper). With
`--max_rows=10` each n is a job of its own, for `--shard` to spread over eight machines.
"""

import published
import tables
from outcomes import Outcome, cell, difference, known
from tables import Row, Size

from rlfb_jax.bin.flags import expand

NAME = 'rbrl_kl'
METHODS = ('rbrl', 'rbrl_kl')
CLASSES = (3, 4, 5, 6)
# G_max of the rater for runs too short to reach what the published one was set for:
# what an agent of this length earns in 50 steps.
SHORT_MAX_RETURN = {
  'cartpole_swingup': 30,
  'ball_in_cup_catch': 50,
  'finger_spin': 25,
  'cheetah_run': 10,
  'walker_walk': 20,
  'quadruped_walk': 20,
}
ROWS = [
  Row(
    name=task,
    task=task,
    flagfile=f'rbrl_kl/{task}.flags',
    arguments=(
      f'--grid=rating_num_classes={",".join(map(str, CLASSES))}',
      f'--grid=method={",".join(METHODS)}',
    ),
    quick=(f'--rating_max_return={max_return}',),
  )
  for task, max_return in SHORT_MAX_RETURN.items()
]
SIZES = {
  'paper': Size(flags=(), seeds=10, steps={}),
  'quick': Size(
    flags=(*expand(['--preset=fast']), '--ppo_num_envs=32'),
    seeds=3,
    steps=dict.fromkeys(SHORT_MAX_RETURN, 256_000),
  ),
  'tiny': Size(
    flags=(*expand(['--preset=fast']), '--ppo_num_envs=32', '--eval_episodes=2'),
    seeds=2,
    steps=dict.fromkeys(SHORT_MAX_RETURN, 64_000),
  ),
}


def lay_out(outcomes: list[Outcome]) -> list[str]:
  """Rows of Markdown: ours, theirs, and the difference over equal seeds."""
  lines = [
    'True return of training episodes over the last tenth of training, mean and 95 %'
    ' interval over seeds; differences are paired by seed. Published: arXiv 2501.07502,'
    ' 4M steps, ten seeds, no spread given.',
    '',
    '| task | n | steps, seeds | RbRL | published | RbRL-KL | published | RbRL-KL minus'
    ' RbRL | published |',
    '|---|---|---|---|---|---|---|---|---|',
  ]
  for row in ROWS:
    for n in CLASSES:
      found = {method: _find(outcomes, row.name, method, n) for method in METHODS}
      theirs = {m: published.RBRL_KL.get((row.task, m, n)) for m in METHODS}
      first, second = found['rbrl'], found['rbrl_kl']
      if first is None and second is None:
        continue
      gap, gain = '', published.RBRL_KL_GAIN.get((row.task, n))
      if theirs['rbrl'] and theirs['rbrl_kl']:
        gap = f'{theirs["rbrl_kl"].mean - theirs["rbrl"].mean:+.0f}'
      elif gain is not None:
        gap = f'{gain:+.1f} %'
      one = first or second
      seeds = dict.fromkeys(str(len(o.seeds)) for o in found.values() if o)
      lines.append(
        f'| {row.task} | {n} | {one.env_steps:,}, {" and ".join(seeds)} |'
        f' {cell(first and first.training)} | {theirs["rbrl"] or ""} |'
        f' {cell(second and second.training)} | {theirs["rbrl_kl"] or ""} |'
        f' {difference(second, first, "training")} | {gap} |'
      )
  missing = len(ROWS) * len(CLASSES) - (len(lines) - 4)
  plot = [f'{published.RBRL_PLOT["rbrl", n]} with n = {n}' for n in CLASSES]
  if any(line.startswith('| walker_walk ') for line in lines):
    lines += [
      '',
      f'walker_walk, RbRL in the plot of its public code: {", ".join(plot)} (ten runs,'
      ' 4M steps, read off to within 10).',
    ]
  if missing:
    lines += ['', f'{missing} of {len(ROWS) * len(CLASSES)} rows were not run.']
  gaps = [
    known(kl.training).mean() - known(plain.training).mean()
    for row in ROWS
    for n in CLASSES
    if (plain := _find(outcomes, row.name, 'rbrl', n))
    and (kl := _find(outcomes, row.name, 'rbrl_kl', n))
    and known(plain.training).size
    and known(kl.training).size
  ]
  if gaps:
    above = sum(gap > 0 for gap in gaps)
    lines += ['', f'RbRL-KL has the higher mean in {above} of {len(gaps)} rows.']
  return lines


def _find(outcomes: list[Outcome], row: str, method: str, n: int) -> Outcome | None:
  wanted = {'method': method, 'rating_num_classes': str(n)}
  return tables.find(outcomes, row, lambda arm: arm == wanted)


def main() -> int:
  options = tables.arguments(__doc__.split('\n')[0], ROWS, SIZES, NAME)
  flags = ('method', 'rating_num_classes')
  outcomes, code = tables.make(NAME, ROWS, SIZES, options, flags)
  if outcomes:
    tables.write(NAME, options, lay_out(outcomes))
  return code


if __name__ == '__main__':
  raise SystemExit(main())
