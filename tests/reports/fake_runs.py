"""Folders as runs leave them, made up."""

import json

import numpy as np

FLAGS = {
  'method': 'rbrl', 'task': 'walker_walk', 'seed': 0, 'num_seeds': 3,
  'total_env_steps': 1000, 'kl_beta': 0.1,
}  # fmt: skip


def write_run(
  root, *, seeds=(0, 1, 2), level=10.0, finished=True, rows=True, row_flags=None,
  spoil=None, lines=10, labels=True, **flags,
):  # fmt: skip
  """A run of ten lines, whose seed s ends at about `level` + s."""
  root.mkdir(parents=True)
  flags = FLAGS | flags
  text = ''.join(f'--{name}={value}\n' for name, value in flags.items())
  (root / 'flags.txt').write_text('# Options\n' + text)
  manifest = {'git': {'revision': 'abcdef0123456', 'changed': False}, 'command': ['x']}
  manifest |= {'device': {'kind': 'cpu', 'count': 1}, 'processor': 'Some <CPU>'}
  (root / 'manifest.json').write_text(json.dumps(manifest))
  if rows:
    each = row_flags or [{} for _ in seeds]
    kinds = [{'seed': s, 'flags': f} for s, f in zip(seeds, each, strict=True)]
    (root / 'rows.json').write_text(json.dumps(kinds))
  if finished:
    (root / 'finished.json').write_text(
      json.dumps({'env_steps': 1000, 'seconds': 60.0})
    )
  said = []
  for i in range(1, lines + 1):
    base = np.asarray(seeds, float) + level * i / 10
    line = {
      'env_steps': 100 * i,
      'episode_return': base.tolist(),
      'learned_return': (0.1 * base).tolist(),
      'wall_seconds': 6.0 * i,
      'phase': 'learn',
      'non_finite_updates': [0.0] * len(seeds),
    }
    if labels:
      line['held_out_rank_correlation'] = [i / 20] * len(seeds)
    if labels and i % 3 == 1:
      line['labels_asked'] = [10 * i] * len(seeds)
      line['class_counts'] = [[5 * i, 3 * i, 2 * i]] * len(seeds)
      line['kl/action'] = [[0.1 * i, 0.2, None]] * len(seeds)
    if spoil is not None:
      spoil(line)
    said.append(json.dumps(line))
  (root / 'metrics.jsonl').write_text('\n'.join(said) + '\n')
  return root
