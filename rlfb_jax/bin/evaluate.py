"""rlfb-evaluate: measures a trained policy on the true reward and films it.

rlfb-evaluate --run=runs/walker_walk-rbrl --num_episodes=20

Writes report/evaluation-TASK-SEED.json and report/clip.mp4 or .gif; what the run itself
found at its end, report/evaluation.json, stays as it is.
"""

import contextlib
import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import cast

import jax

from rlfb_jax.bin import flags
from rlfb_jax.core.config import option
from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import Environment
from rlfb_jax.envs.environment import MujocoEnvironment
from rlfb_jax.envs.make import make
from rlfb_jax.physics.config import PhysicsOptions
from rlfb_jax.training import evaluate, export, program, render
from rlfb_jax.training import returns as returns_lib
from rlfb_jax.training.progress import tell

PROGRAM = 'rlfb-evaluate'


@dataclasses.dataclass(frozen=True)
class EvaluateOptions(PhysicsOptions):
  """What to evaluate and how."""

  run: str = option('', "folder of a run, or of a policy's export")
  task: str = option('', 'task to evaluate on; the one trained on where empty')
  num_episodes: int = option(10, 'episodes of each seed', low=1)
  seed: int = option(0, 'randomness of the starts, the same for every policy', low=0)
  clip: bool = option(True, 'whether to write a clip of one episode')
  clip_seed: int = option(-1, 'policy shown in the clip; -1: that of median return')
  clip_seconds: float = option(10.0, "simulated seconds of the clip's length", above=0)
  width: int = option(320, "the clip's width in pixels", low=16, high=4096)
  height: int = option(240, "the clip's height in pixels", low=16, high=4096)


SECTIONS: flags.Sections = {'': EvaluateOptions}


def check(config: flags.Config) -> None:
  """What the options say together."""
  if not cast(EvaluateOptions, config['']).run:
    raise ValueError('--run names no run; try --run=runs/NAME.')


def main(argv: Sequence[str]) -> None:
  """Evaluates as the command line says."""
  if flags.wants_help(argv):
    print(flags.help_text(__doc__ or '', SECTIONS))
    return
  with flags.usage_errors(PROGRAM):
    config = flags.parse(argv, SECTIONS, [check])
    options = cast(EvaluateOptions, config[''])
    policy = export.load_policy(options.run)
    if not -1 <= options.clip_seed < policy.num_seeds:
      policy.seed(options.clip_seed)  # Says which there are.
    env = make(options.task or policy.task, **options.engine_settings())
    _check_fit(policy, env)
  folder = pathlib.Path(options.run) / 'report'
  with _disk_errors(options.run):  # Known before anything is played.
    folder.mkdir(exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
  evaluate_key, clip_key = jax.random.split(jax.random.key(options.seed))
  jit = program.jit_with('float32')
  run_all = jit(
    lambda params: evaluate.evaluate_seeds(
      env, policy.apply, params, evaluate_key, options.num_episodes
    )
  )
  episodes = jax.device_get(run_all(policy.params()))
  print(returns_lib.describe(env.name, episodes))
  path = folder / returns_lib.file_of(env.name, options.seed)
  with _disk_errors(options.run):
    returns_lib.save(path, env.name, options.seed, episodes)
  if options.clip and isinstance(env, MujocoEnvironment):
    shown = options.clip_seed
    shown = returns_lib.median_policy(episodes.returns) if shown == -1 else shown
    with _disk_errors(options.run):
      said = film(env, policy.seed(shown), folder / 'clip', clip_key, options)
    print(f'policy {shown}: {said}')


def film(
  env: MujocoEnvironment,
  policy: export.Policy,
  path: pathlib.Path,
  key: Key,
  options: EvaluateOptions,
) -> str:
  """Films one episode of a single policy; returns what to tell the user."""
  params = jax.tree.map(lambda x: x[0], policy.params())
  jit = program.jit_with('float32')
  show = jit(lambda params: evaluate.record(env, policy.apply, params, key)[0])
  return render.clip_or_sentence(
    path,
    env.model,
    show(params),
    env.control_timestep,
    max_seconds=options.clip_seconds,
    width=options.width,
    height=options.height,
  )


@contextlib.contextmanager
def _disk_errors(run: str) -> Iterator[None]:
  """Ends the program with one sentence where the run's folder takes no file."""
  try:
    yield
  except OSError as error:
    tell(
      f'{PROGRAM}: --run={run} cannot be written to ({error.strerror}); name a copy'
      ' that can.'
    )
    raise SystemExit(1) from None


def _check_fit(policy: export.Policy, env: Environment) -> None:
  sizes = {
    'observation_size': (policy.observation_size, env.observation_size),
    'action_size': (policy.action_size, env.action_size),
  }
  for name, (has, needs) in sizes.items():
    if has != needs:
      raise ValueError(
        f'--task={env.name} has {name}={needs}, but this policy of {policy.task} '
        f'has {has}; try --task={policy.task}.'
      )


def run() -> None:
  """Entry point of the command."""
  main(sys.argv[1:])


if __name__ == '__main__':
  run()
