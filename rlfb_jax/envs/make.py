"""Environments by name."""

import dataclasses
import functools
from collections.abc import Callable

import jax

from rlfb_jax.core.suggest import check_known
from rlfb_jax.core.xla_flags import avoid_cpu_deadlock
from rlfb_jax.envs.base import Environment, Task
from rlfb_jax.envs.environment import MujocoEnvironment
from rlfb_jax.envs.probe import PROBES, ProbeEnvironment
from rlfb_jax.envs.tasks import (
  ball_in_cup,
  cartpole,
  cheetah,
  finger,
  quadruped,
  walker,
)
from rlfb_jax.physics.base import Physics
from rlfb_jax.physics.config import PhysicsOptions
from rlfb_jax.physics.native import NativePhysics

_DOMAINS = (ball_in_cup, cartpole, cheetah, finger, quadruped, walker)
_PROBES = {probe.name: probe for probe in PROBES}
_registered: dict[str, Callable[[], Environment]] = {}


@functools.cache
def _tasks() -> dict[str, Task]:
  return {task.name: task for domain in _DOMAINS for task in domain.TASKS}


def task_names() -> tuple[str, ...]:
  """Names of the tasks that `make` builds on a physics engine, sorted."""
  return tuple(sorted(_tasks()))


def get_task(name: str) -> Task:
  """The task of that name.

  Raises:
    ValueError: if there is none.
  """
  check_known('task', name, task_names())
  return _tasks()[name]


def register(name: str, factory: Callable[[], Environment]) -> None:
  """Makes an environment known to `make`, and so to `--task`, in this process.

  A name that was registered before stands for the new environment from then on.

  Args:
    name: what users will call it; the environment's own `name`.
    factory: builds it, such as `lambda: AdaptedEnvironment(env, 'mine')`.

  Raises:
    ValueError: if a task or probe world of this package has the name.
  """
  if name in (*task_names(), *_PROBES):
    raise ValueError(f'{name} is a task of rlfb_jax; register another name.')
  _registered[name] = factory


def make(
  name: str,
  engine: str = 'auto',
  *,
  impl: str = 'jax',
  solver: str = 'benchmark',
  num_threads: int = 0,
  episode_length: int | None = None,
) -> Environment:
  """Builds an environment.

  Args:
    name: a task, see `task_names`, e.g. `walker_walk`; a probe world, e.g.
      `probe_choice`, or a name that was registered, which need no engine.
    engine: `native` (C MuJoCo), `mjx`, or `auto`: native where JAX computes on
      the CPU, mjx elsewhere.
    impl: mjx only: `jax` or `warp`.
    solver: mjx only: `benchmark` (the model's own settings), `trimmed` or `fast`.
    num_threads: native only: threads that step; 0 means one a core.
    episode_length: control steps, if not the task's own; not of registered ones, which
      have the length that they are built with.

  Raises:
    ValueError: if a name or an option is unknown, warp is not installed, the length is
      not positive or cannot be chosen, or what is registered under the name has
      another.
  """
  options = PhysicsOptions(engine, impl, solver, num_threads)
  check_known('task', name, [*task_names(), *_PROBES, *_registered])
  if episode_length is not None and episode_length < 1:
    raise ValueError(f'episode_length={episode_length} must be at least 1; try 1000.')
  if name in _registered:
    if episode_length is not None:
      raise ValueError(
        f'episode_length={episode_length} cannot be given to {name}, which was'
        ' registered; build it with that length.'
      )
    env = _registered[name]()
    if env.name != name:
      # Runs and policies would name a task that nobody can make.
      raise ValueError(f'the environment registered as {name} has name={env.name}.')
    return env
  if name in _PROBES:
    return ProbeEnvironment(_PROBES[name], episode_length)
  task = get_task(name)
  if episode_length is not None:
    task = dataclasses.replace(task, episode_length=episode_length)
  return MujocoEnvironment(task, _make_physics(task, options))


def _make_physics(task: Task, options: PhysicsOptions) -> Physics:
  engine = options.engine
  if engine == 'mjx':
    avoid_cpu_deadlock()  # Before anything below starts JAX.
  if engine == 'auto':
    engine = 'native' if jax.default_backend() == 'cpu' else 'mjx'
  model = task.make_model()
  if engine == 'native':
    return NativePhysics(model, options.num_threads)
  # Imported on demand: mjx takes seconds to import.
  from rlfb_jax.physics.mjx import MjxPhysics, solver_iterations

  iterations = solver_iterations(options.solver, task.name)
  return MjxPhysics(model, options.impl, iterations)
