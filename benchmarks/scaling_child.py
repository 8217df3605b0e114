"""One process of `scaling.py`: trains on each mesh in turn and says how long it took.

JSON comes in as the only argument and goes out on the last line.
"""

import json
import sys
import time

import jax
import workloads

from rlfb_jax import envs, methods
from rlfb_jax.methods.device_options import DeviceOptions
from rlfb_jax.training import hosts
from rlfb_jax.training.loop import seed_keys
from rlfb_jax.training.placement import make_placement
from rlfb_jax.training.program import Compiled, compile_algorithm


def main(order: dict) -> dict:
  """Seconds of each chunk, by mesh.

  Args:
    order: `task`, `sizes` and `seeds`; `meshes`; `rounds`, in each of which every mesh
      has its turn; `threads` of C MuJoCo; `hosts`, flags for `DeviceOptions`.
  """
  splits = [mesh for mesh in order['meshes'] if mesh.startswith('data')]
  hosts.connect(DeviceOptions(mesh=','.join(splits[-1:]), **order['hosts']))
  config = workloads.make_config('ppo', order['task'], order['sizes'], tiny=False)
  env = envs.make(
    order['task'],
    'native',
    num_threads=order['threads'],
    # As long as a rollout, and so chunks of one rollout.
    episode_length=config.ppo.rollout_steps,
  )
  algorithm = methods.make(config, env)
  runs = {mesh: _start(algorithm, mesh, order['seeds']) for mesh in order['meshes']}
  seconds: dict[str, list[float]] = {mesh: [] for mesh in runs}
  for _ in range(order['rounds']):
    for mesh, (functions, state) in runs.items():
      start = time.perf_counter()
      state = _chunk(functions, state)
      seconds[mesh].append(time.perf_counter() - start)
      runs[mesh] = functions, state
  steps = algorithm.steps_of('learn') * order['seeds']
  return {'seconds': seconds, 'env_steps': steps, 'devices': jax.device_count()}


def _start(algorithm: methods.Algorithm, mesh: str, seeds: int) -> tuple:
  functions = compile_algorithm(algorithm, make_placement(mesh, seeds))
  state = functions.init(seed_keys(0, seeds))
  return functions, _chunk(functions, state)  # The first compiles.


def _chunk(functions: Compiled, state: object) -> object:
  state, metrics = functions.chunks['learn'](state)
  jax.device_get(metrics)
  return jax.block_until_ready(state)


if __name__ == '__main__':
  print(json.dumps(main(json.loads(sys.argv[1]))))
