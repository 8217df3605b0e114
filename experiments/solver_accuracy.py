"""How far MJX is from C MuJoCo with each setting of its constraint solver.

  python experiments/solver_accuracy.py
  python experiments/solver_accuracy.py --tasks=quadruped_walk   # the others stay

Random actions lead C MuJoCo through states of a task. From each, both engines are
driven by the same random actions, MJX in float32 and warm-started as in the middle of
an episode, with each value of `--solver`. Compared after one control step and after ten
are observations (the largest difference of a state's, relative to 1 + their size) and
rewards. In chaotic motion the engines part ways whatever the solver: what counts is how
`trimmed` and `fast` do beside `benchmark`. How long a control step of all states takes
is measured in turns.
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import choices
import jax
import kept
import mujoco
import numpy as np

from rlfb_jax import envs
from rlfb_jax.core.xla_flags import avoid_cpu_deadlock
from rlfb_jax.envs.environment import MujocoEnvironment
from rlfb_jax.physics.base import Physics, PhysicsState
from rlfb_jax.training import manifest

RESULTS = pathlib.Path(__file__).parent / 'results' / 'solver_accuracy.json'
# One of each domain, those that compile in seconds first.
TASKS = (
  'cartpole_swingup',
  'ball_in_cup_catch',
  'cheetah_run',
  'finger_spin',
  'walker_walk',
  'quadruped_walk',
)
SOLVERS = ('benchmark', 'trimmed', 'fast')
COMPARED = (1, 10)  # Control steps.
MOMENTS, SPACING = 8, 25  # An episode's states, and control steps between them.
ROUNDS = 5
QUANTILES = {'median': 0.5, '95 %': 0.95, '99 %': 0.99, 'max': 1.0}
INTEGRATION_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


def visited(env: MujocoEnvironment, num_states: int) -> np.ndarray:
  """Where random actions lead: integration states of C MuJoCo, [num_states, n]."""
  key, step = jax.random.key(0), jax.jit(env.step)
  state = jax.jit(env.reset, static_argnums=1)(key, num_states // MOMENTS)
  found = []
  for i in range(1, MOMENTS * SPACING + 1):
    shape = num_states // MOMENTS, env.action_size
    actions = jax.random.uniform(jax.random.fold_in(key, i), shape, minval=-1.0)
    state = step(state, actions)
    if i % SPACING == 0:
      found.append(np.asarray(state.physics.engine))
  return np.concatenate(found).view(np.float64)


def native_state(env: Any, rows: np.ndarray) -> PhysicsState:
  """The states as C MuJoCo goes on from them."""
  return PhysicsState(*[None] * 5, env.physics.from_integration_state(rows))


def mjx_state(model: mujoco.MjModel, rows: np.ndarray) -> PhysicsState:
  """The same as MJX goes on from them, in float32."""
  names = 'time', 'qpos', 'qvel', 'act', 'qacc_warmstart'
  data, fields = mujoco.MjData(model), {name: [] for name in names}
  for row in rows:
    mujoco.mj_setState(model, data, row, INTEGRATION_STATE)
    for name, values in fields.items():
      values.append(np.array(getattr(data, name), np.float32))
  return PhysicsState(*[None] * 5, {n: np.stack(v) for n, v in fields.items()})


def outcomes(
  env: MujocoEnvironment, physics: Physics, state: PhysicsState, ctrls: np.ndarray
) -> dict[int, dict[str, np.ndarray]]:
  """Observations and rewards after so many control steps, [N, ...].

  Args:
    env: whose task it is.
    physics: what moves.
    state: where to start, N of them.
    ctrls: [steps, N, nu].
  """
  found = {}
  for i, ctrl in enumerate(ctrls, 1):
    state = physics.step(state, ctrl, env.task.substeps)
    if i in COMPARED:
      found[i] = {
        'obs': np.asarray(env.task.observe(env.model, state)),
        'reward': np.asarray(env.task.reward(env.model, state, ctrl)),
      }
  return found


def errors(
  ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> dict[str, Any]:
  """Quantiles over states that are finite on both engines, and how many are not."""
  obs = np.abs(ours['obs'] - theirs['obs']) / (1 + np.abs(theirs['obs']))
  each = {'obs': obs.max(axis=1), 'reward': np.abs(ours['reward'] - theirs['reward'])}
  finite = np.isfinite(each['obs']) & np.isfinite(each['reward'])
  found: dict[str, Any] = {'not_finite': int(np.sum(~finite))}
  for name, values in each.items():
    found[name] = {
      q: float(f'{np.quantile(values[finite], at):.2g}') for q, at in QUANTILES.items()
    }
  return found


def measure(
  task: str, num_states: int, save: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
  """What becomes of a task's states under each solver; saved after each."""
  # Imported late, as in `envs.make`: after the setting that keeps MJX from a deadlock.
  from rlfb_jax.physics.mjx import MjxPhysics, solver_iterations

  env: Any = envs.make(task, engine='native')
  rows = visited(env, num_states)
  rng = np.random.default_rng(0)
  shape = max(COMPARED), len(rows), env.action_size
  ctrls = np.asarray(env.to_ctrl(rng.uniform(-1, 1, shape).astype(np.float32)))
  expected = outcomes(env, env.physics, native_state(env, rows), ctrls)
  start, engines = mjx_state(env.model, rows), {}
  record: dict[str, Any] = {
    'manifest': manifest.make(),
    'states': len(rows),
    'solvers': {},
  }
  for solver in SOLVERS:
    chosen = solver_iterations(solver, task)
    engines[solver] = MjxPhysics(env.model, iterations=chosen)
    found = outcomes(env, engines[solver], start, ctrls)
    option = env.model.opt
    record['solvers'][solver] = {
      'iterations': list(chosen or (option.iterations, option.ls_iterations)),
      'after': {str(n): errors(found[n], expected[n]) for n in COMPARED},
    }
    save(record)
  for _ in range(ROUNDS):
    for solver, physics in engines.items():
      began = time.perf_counter()
      jax.block_until_ready(physics.step(start, ctrls[0], env.task.substeps))
      seconds = round(time.perf_counter() - began, 5)
      record['solvers'][solver].setdefault('seconds', []).append(seconds)
  save(record)
  return record


def markdown(records: dict[str, Any]) -> str:
  """A table of what was measured."""
  parts = [
    "# MJX's solver settings beside C MuJoCo",
    'Made by `experiments/solver_accuracy.py`: '
    + '; '.join(
      f'{task} {record["manifest"]["started"]}, {record["states"]} states'
      for task, record in records.items()
    )
    + '. Versions and processor are in the raw data beside this table.',
    f'Of states that random actions lead to, {" / ".join(QUANTILES)} of the difference'
    ' to C MuJoCo from the same state under the same actions. Observations: the largest'
    " of a state's, relative to 1 + their size. Iterations are those of the solver and"
    ' of its line search, at most; speed is that of a control step beside `benchmark`,'
    f' median of {ROUNDS} rounds in turns.',
  ]
  head = ['task', 'solver', 'iterations', 'speed']
  head += [
    f'{n}, {s}' for n in ('observations', 'rewards') for s in map(_steps, COMPARED)
  ]
  lines = [head, ['---'] * len(head)]
  for task, record in records.items():
    for solver, found in record['solvers'].items():
      cells = [
        ' / '.join(f'{value:.0e}' for value in found['after'][str(n)][name].values())
        for name in ('obs', 'reward')
        for n in COMPARED
      ]
      iterations = ' / '.join(map(str, found['iterations']))
      lines.append([task, solver, iterations, _speed(record, solver), *cells])
  parts.append('\n'.join(f'| {" | ".join(line)} |' for line in lines))
  broken = [
    f'{task}, {solver}: {count} states were not finite after {_steps(n)}.'
    for task, record in records.items()
    for solver, found in record['solvers'].items()
    for n in COMPARED
    if (count := found['after'][str(n)]['not_finite'])
  ]
  return '\n\n'.join([*parts, *broken]) + '\n'


def _steps(count: int) -> str:
  return f'{count} step{"s" * (count > 1)}'


def _speed(record: dict[str, Any], solver: str) -> str:
  times = [record['solvers'][s].get('seconds') for s in ('benchmark', solver)]
  if not all(times):
    return ''
  return f'{np.median(np.divide(*times)):.1f}'


def save(task: str, record: dict[str, Any]) -> None:
  """Writes a task's results beside those of others, and the table."""
  otherwise = f'start --tasks={task} again'
  kept.put(RESULTS, task, record, otherwise, order=TASKS, markdown=markdown)


def main(argv: Sequence[str]) -> None:
  """Measures task by task; what is done is kept if the rest is stopped."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
  parser.add_argument('--tasks', default=','.join(TASKS), help='comma-separated')
  parser.add_argument('--states', type=int, default=512, help=f'multiple of {MOMENTS}')
  options = parser.parse_args(argv)
  tasks = choices.split(parser, 'tasks', options.tasks, TASKS)
  choices.check_at_least(parser, 'states', options.states, MOMENTS)
  if options.states % MOMENTS:
    nearest = options.states // MOMENTS * MOMENTS
    parser.error(
      f'--states={options.states} must be a multiple of {MOMENTS}; try'
      f' --states={nearest}.'
    )
  avoid_cpu_deadlock()  # Before JAX starts: MJX comes second.
  for task in tasks:
    began = time.monotonic()
    measure(task, options.states, lambda record, task=task: save(task, record))
    print(f'{task}: {time.monotonic() - began:.0f} s', flush=True)


if __name__ == '__main__':
  main(sys.argv[1:])
