"""Small runs on meshes of devices, each in a process of its own.

  python spread_runs.py OUT METHOD TASK MESH... [--flag=value ...]

The number of devices must stand in `XLA_FLAGS` before JAX starts, hence the process.
It writes OUT/MESH.npz, the last state, of each mesh. With --resume=MESH it also takes
that run up from half way, and writes OUT/MESH-resumed.npz.
"""

import dataclasses
import faulthandler
import functools
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
ONE = 'one'  # Device: no mesh at all.
TIMEOUT = 540.0  # Seconds: devices that wait for each other for ever must not win.

# Episodes of 20 steps: some end, and start anew, on every device.
CHANGES = {
  'ppo': {'run': {'total_env_steps': 640}},
  'sac': {'run': {'total_env_steps': 320}},
  'mrn': {'run': {'total_env_steps': 480}, 'mrn': {'interval': 80}},
  'rbrl_kl': {'run': {'total_env_steps': 640}},
}


def start(
  out: pathlib.Path, *args: str, devices: int, flags: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
  """Starts the runs; `args` are METHOD, TASK and meshes."""
  # The tests' own process has switched XLA's scheduler off; a run chooses for itself.
  xla = [f for f in os.environ.get('XLA_FLAGS', '').split() if 'scheduler' not in f]
  xla.append(f'--xla_force_host_platform_device_count={devices}')
  return subprocess.Popen(
    [sys.executable, __file__, str(out), *args, *flags],
    env={**os.environ, 'XLA_FLAGS': ' '.join(xla), 'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(*processes: subprocess.Popen[str]) -> None:
  """Waits for all; fails with the last words of one that failed."""
  try:
    said = [process.communicate(timeout=TIMEOUT + 20)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
  for process, text in zip(processes, said, strict=True):
    assert process.returncode == 0, text[-3000:]


def main(argv: list[str]) -> None:
  import jax

  from rlfb_jax import envs, methods
  from rlfb_jax.methods.device_options import DeviceOptions
  from rlfb_jax.training import hosts
  from rlfb_jax.training.checkpoint import Checkpoints
  from rlfb_jax.training.loop import seed_keys, train
  from rlfb_jax.training.placement import make_placement
  from rlfb_jax.training.program import compile_algorithm
  from tests.methods.probe_runs import compilations, make_config

  flags = dict(a[2:].split('=', 1) for a in argv if a.startswith('--'))
  folder, method, task, *meshes = (a for a in argv if not a.startswith('--'))
  out = pathlib.Path(folder)
  num_seeds = int(flags.get('num_seeds', 2))
  split = [mesh for mesh in meshes if 'data' in mesh]
  options = DeviceOptions(mesh=split[0] if split else '')
  if 'process_id' in flags:
    options = dataclasses.replace(
      options,
      coordinator_address=flags['coordinator_address'],
      num_processes=2,
      process_id=int(flags['process_id']),
    )
  hosts.connect(options)
  # Programs that hold no sums over devices keep the faster scheduler.
  assert ('scheduler' in os.environ['XLA_FLAGS']) == bool(split)
  changes = CHANGES[method]
  config = make_config(method, **{**changes, 'run': {**changes['run'], 'task': task}})
  length = None if task.startswith('probe_') else 20
  env = envs.make(task, flags.get('engine', 'native'), episode_length=length)
  algorithm = methods.make(config, env)

  for mesh in meshes:
    placement = None if mesh == ONE else make_placement(mesh, num_seeds)
    functions = compile_algorithm(algorithm, placement)
    counts = []
    rows = seed_keys(int(flags.get('seed', 0)), num_seeds)
    go = functools.partial(
      train,
      algorithm,
      env,
      rows=rows,
      total_env_steps=config.run.total_env_steps,
      eval_episodes=int(flags.get('eval_episodes', 0)),
      functions=functions,
    )
    saves = None
    if mesh == flags.get('resume'):
      saves = Checkpoints(out / f'{mesh}-saves', minutes=0.0, kept=1000)
    with compilations() as compiled:
      trained = go(
        listeners=(lambda *_, n=counts, seen=compiled: n.append(len(seen)),),
        checkpoints=saves,
      )
    if method == 'ppo':  # Its first chunk is like all others.
      assert len(counts) > 2
      assert counts[-1] == counts[0], counts
    if placement is not None:
      check_spread(functions, trained.state, num_seeds)
    keep(out / f'{mesh}.npz', trained)
    if saves is None:
      continue
    middle = saves.steps()[len(saves.steps()) // 2]
    half = out / f'{mesh}-half'
    shutil.copytree(out / f'{mesh}-saves' / str(middle), half / str(middle))
    rest = Checkpoints(half, minutes=None)
    like = jax.eval_shape(jax.vmap(algorithm.init), rows)
    restored = rest.restore(like, functions.place)
    assert 0 < restored.clock.env_steps < config.run.total_env_steps
    keep(out / f'{mesh}-resumed.npz', go(checkpoints=rest, restored=restored))


def keep(path, trained):
  """Writes the last state, on the first host."""
  import jax
  import numpy as np

  from rlfb_jax.training import hosts

  state = hosts.whole(trained.state)
  if not hosts.is_first():
    return
  leaves = {jax.tree_util.keystr(p): x for p, x in jax.tree.leaves_with_path(state)}
  if trained.evaluation is not None:
    leaves['evaluation'] = trained.evaluation.returns
  np.savez(path, **leaves)


def check_spread(functions, state, num_seeds):
  """Each device holds its part alone."""
  spread, split = functions.placement.mesh.devices.shape
  obs = state.env.obs
  part = obs.addressable_shards[0].data.shape
  assert part[:2] == (num_seeds // spread, obs.shape[1] // split), part


if __name__ == '__main__':
  faulthandler.dump_traceback_later(TIMEOUT, exit=True)
  main(sys.argv[1:])
