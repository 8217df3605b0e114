"""A configuration that is planned in no time, and a plan of it."""

from rlfb_jax.bin import launch
from rlfb_jax.methods.family import flags_of
from rlfb_jax.sweeps.definition import Sweep
from rlfb_jax.sweeps.held import Held, run_of
from rlfb_jax.sweeps.jobs import plan
from rlfb_jax.training.run import make_environment

BASE = (
  '--task=probe_choice',
  '--method=ppo',
  '--total_env_steps=320',
  '--ppo_num_envs=8',
  '--ppo_rollout_steps=20',
  '--ppo_minibatch_size=40',
)


def jobs_of(max_rows=0, memory=2**33, seeds=1, base=BASE, arms=None, held=(), **grid):
  """Jobs of a grid, its values given as one text each: `task='a,b'`."""
  axes = {flag: tuple(values.split(',')) for flag, values in grid.items()}
  sweep = Sweep(seeds=seeds, base=base, grid=axes, arms=arms or {})
  return plan(
    sweep,
    launch.parse,
    make_environment,
    max_rows=max_rows,
    memory=memory,
    held=held,
  )


def begun(job, finished=False):
  """The folder that a job leaves behind."""
  flags = flags_of(job.config)
  runs = [run_of({**flags, **row.flags}, row.seed) for row in job.rows]
  return Held(job.name, job.rows, tuple(runs), finished)
