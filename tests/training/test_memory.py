"""A run holds as much after fifty chunks as it did after ten."""

import itertools
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHUNKS, EVERY = 50, 10

# With a session in each chunk but the first, which explores.
FLAGS = f"""
  --method=rbrl_kl --task=probe_choice --total_env_steps={CHUNKS * 40} --num_seeds=2
  --ppo_num_envs=4 --ppo_rollout_steps=10 --ppo_num_epochs=1 --ppo_minibatch_size=20
  --ppo_hidden_size=8 --ppo_hidden_layers=1 --pretrain_num_epochs=1
  --rating_num_classes=3 --rating_max_return=5
  --feedback_label_budget={CHUNKS * 4} --feedback_labels_per_session=4
  --feedback_session_interval=40 --feedback_pretrain_steps=40
  --feedback_at_episode_end=false --feedback_segment_steps=5 --feedback_large_batch=2
  --reward_hidden_size=8 --reward_hidden_layers=1 --reward_max_passes=1
  --reward_minibatch_size=8 --kl_batch=16 --kl_min_segments=3 --eval_episodes=0
"""

# Memory that is no file's, since the system takes pages of libraries away and gives
# them back as it likes; arrays of JAX; and all that Python holds, metrics in NumPy
# among it.
PROGRAM = f"""
import gc, json, os, pathlib, sys
import jax
import rlfb_jax
from rlfb_jax.training import run

seen = []

class Watching(run.Progress):
  chunks = 0

  def update(self, env_steps, values=None):
    super().update(env_steps, values)
    self.chunks += 1
    if self.chunks % {EVERY}:
      return
    gc.collect()
    _, resident, shared, *_ = pathlib.Path('/proc/self/statm').read_text().split()
    seen.append({{
      'MiB': (int(resident) - int(shared)) * os.sysconf('SC_PAGE_SIZE') / 2**20,
      'arrays': len(jax.live_arrays()),
      'blocks': sys.getallocatedblocks(),
      'sessions': 'labels_asked' in values,
    }})

run.Progress = Watching
rlfb_jax.train(sys.argv[1:])
print(json.dumps(seen))
"""


def test_memory_does_not_grow_with_training_time(tmp_path):
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM, *FLAGS.split(), f'--run_dir={tmp_path / "run"}'],
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  seen = json.loads(done.stdout)
  assert len(seen) == CHUNKS // EVERY
  assert all(at['sessions'] for at in seen)
  for name, growth in (('MiB', 2), ('arrays', 10), ('blocks', 2000)):
    held = [at[name] for at in seen]
    # Each beside the least so far: what compilers leave may go at any time.
    least = itertools.accumulate(held, min)
    assert max(now - low for now, low in zip(held, least, strict=True)) < growth, name
