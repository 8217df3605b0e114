"""Our environments beside dm_control's, along the episodes of trained policies.

The tests hold ours to dm_control's on random and on strong rhythmic motion. Here a
policy that has learned its task decides, from dm_control's observation, what both do:

  python experiments/trained_parity.py --policies=runs/a,runs/b --episodes=4

C MuJoCo goes through whole episodes beside dm_control. MJX, which parts ways with it
within seconds of chaotic motion in float32, starts anew at states along the way and is
compared after one control step. The largest differences of observations and rewards go
to `--out`, with the return of each episode, which says how well the policy does.
"""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault('MUJOCO_GL', 'disable')  # dm_control looks for a screen else.

import choices
import jax
import mujoco
import numpy as np
from dm_control import suite

from rlfb_jax import envs, load_policy
from rlfb_jax.bin import flags
from rlfb_jax.core.xla_flags import avoid_cpu_deadlock
from rlfb_jax.training import manifest
from rlfb_jax.training.export import Policy

RESULTS = pathlib.Path(__file__).parent / 'results'
INTEGRATION_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


def episode(policy: Policy, seed: int) -> dict[str, np.ndarray]:
  """One episode of dm_control's environment under a policy of its turn, [T, ...].

  Controls are float32 as ours are, so that all engines are given the same numbers.
  """
  domain, task = policy.task.rsplit('_', 1)
  env = suite.load(domain, task, task_kwargs={'random': seed})
  ours = envs.make(policy.task, engine='native')
  # As our programs compute them: eagerly, a product and a sum round twice, and of the
  # quadruped's controls one in twelve would be another number.
  to_ctrl = jax.jit(ours.to_ctrl)
  step = env.reset()
  found: dict[str, list[Any]] = {
    name: [] for name in ('state', 'qpos', 'qvel', 'act', 'action', 'obs', 'reward')
  }
  while not step.last():
    seen = np.concatenate([np.ravel(x) for x in step.observation.values()])
    action = policy.act(seen.astype(np.float32), seed % policy.num_seeds)
    data = env.physics.data
    found['state'].append(env.physics.get_state(INTEGRATION_STATE))
    for name in ('qpos', 'qvel', 'act'):
      found[name].append(np.array(getattr(data, name)))
    found['action'].append(action)
    step = env.step(np.asarray(to_ctrl(action), np.float64))
    found['obs'].append(
      np.concatenate([np.ravel(x) for x in step.observation.values()])
    )
    found['reward'].append(step.reward)
  return {name: np.stack(values) for name, values in found.items()}


def native_differences(
  task: str, episodes: Sequence[dict[str, np.ndarray]]
) -> dict[str, float]:
  """Whole episodes on C MuJoCo from dm_control's first states."""
  env: Any = envs.make(task, engine='native')
  stacked = {name: np.stack([e[name] for e in episodes]) for name in episodes[0]}
  state = jax.jit(lambda key: env.reset(key, len(episodes)))(jax.random.key(0))
  engine = env.physics.from_integration_state(stacked['state'][:, 0])
  state = state.replace(physics=state.physics.replace(engine=engine))

  @jax.jit
  def run(state: Any, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
    def one(state: Any, action: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
      state = env.step(state, action)
      return state, (state.final_obs, state.env_reward)

    return jax.lax.scan(one, state, actions)[1]

  obs, reward = run(state, np.swapaxes(stacked['action'], 0, 1))
  return differences(
    np.swapaxes(obs, 0, 1), np.swapaxes(reward, 0, 1), stacked['obs'], stacked['reward']
  )


def mjx_differences(
  task: str, episodes: Sequence[dict[str, np.ndarray]], num_states: int
) -> dict[str, float]:
  """One control step on MJX from states spread over the episodes."""
  env: Any = envs.make(task, engine='mjx')
  joined = {n: np.concatenate([e[n] for e in episodes]) for n in episodes[0]}
  chosen = np.linspace(0, len(joined['reward']) - 1, num_states).astype(int)
  picked = {name: values[chosen] for name, values in joined.items()}

  @jax.jit
  def step(qpos: Any, qvel: Any, act: Any, action: Any) -> tuple[jax.Array, jax.Array]:
    start = env.reset_to(jax.random.key(0), env.physics.init(qpos, qvel, act))
    after = env.step(start, action)
    return after.final_obs, after.env_reward

  given = (np.float32(picked[n]) for n in ('qpos', 'qvel', 'act', 'action'))
  obs, reward = step(*given)
  return differences(obs, reward, picked['obs'], picked['reward'])


def differences(
  obs: Any, reward: Any, expected_obs: np.ndarray, expected_reward: np.ndarray
) -> dict[str, float]:
  """Largest and median differences; observations relative to 1 + their size."""
  off = np.abs(np.asarray(obs) - expected_obs) / (1 + np.abs(expected_obs))
  paid = np.abs(np.asarray(reward) - expected_reward)
  each = off.reshape(-1, off.shape[-1]).max(axis=-1)
  return {
    'states': int(paid.size),
    'obs_max': float(off.max()),
    'obs_median_of_max': float(np.median(each)),
    'reward_max': float(paid.max()),
    'reward_median': float(np.median(paid)),
  }


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """The command line; ends with a sentence where it is wrong."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--policies', required=True, help='run folders, comma-separated')
  parser.add_argument('--episodes', type=int, default=4)
  parser.add_argument('--mjx_states', type=int, default=128)
  parser.add_argument('--out', default=str(RESULTS / 'trained_parity.json'))
  options = parser.parse_args(argv)
  options.policies = choices.split(parser, 'policies', options.policies, ())
  choices.check_at_least(parser, 'episodes', options.episodes, 1)
  choices.check_at_least(parser, 'mjx_states', options.mjx_states, 1)
  return options


def read_policies(paths: Sequence[str]) -> list[Policy]:
  """The policies of runs, all before the first is compared.

  Raises:
    ValueError: in one sentence, if there is none or dm_control has not its task.
  """
  policies = []
  for path in paths:
    policy = load_policy(path)
    if policy.task not in envs.task_names():
      known = ', '.join(envs.task_names())
      raise ValueError(
        f'--policies={path} is of {policy.task}, which dm_control does not have; try'
        f' one of {known}.'
      )
    policies.append(policy)
  return policies


def main(argv: Sequence[str]) -> None:
  """Compares, prints a line a policy, and saves."""
  options = parse(argv)
  avoid_cpu_deadlock()  # Before JAX starts: MJX comes second.
  with flags.usage_errors('trained_parity'):
    policies = read_policies(options.policies)
  out = pathlib.Path(options.out)
  out.parent.mkdir(parents=True, exist_ok=True)
  rows = []
  for policy in policies:
    episodes = [episode(policy, i) for i in range(options.episodes)]
    row = {
      'task': policy.task,
      'returns': [round(float(e['reward'].sum()), 1) for e in episodes],
      'native': native_differences(policy.task, episodes),
      'mjx': mjx_differences(policy.task, episodes, options.mjx_states),
    }
    print(json.dumps(row), flush=True)
    rows.append(row)
  record = {'manifest': manifest.make(), 'rows': rows}
  out.write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
  main(sys.argv[1:])
