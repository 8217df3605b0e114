"""Small runs on a world that takes seconds, shared by the tests of methods."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlfb_jax import envs, methods
from rlfb_jax.core.types import Key
from rlfb_jax.envs.base import Environment, EnvState
from rlfb_jax.methods.algorithm import Algorithm, Request
from rlfb_jax.methods.config import Config
from rlfb_jax.training.loop import seed_keys, train
from rlfb_jax.training.program import Compiled, compile_algorithm


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
  """What is compiled meanwhile, or taken from the compilation cache: one entry each."""
  seen: list[str] = []
  listening = True

  def listen(event: str, *args: Any, **facts: Any) -> None:
    del args, facts
    if listening and event.endswith('backend_compile_duration'):
      seen.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield seen
  finally:
    listening = False


SMALL: dict[str, dict[str, Any]] = {
  'run': {'task': 'probe_choice', 'total_env_steps': 1280},
  'ppo': {
    'num_envs': 8,
    'rollout_steps': 20,
    'num_epochs': 2,
    'minibatch_size': 40,
    'hidden_size': 16,
    'hidden_layers': 2,
    'learning_rate': 1e-3,
  },
  'rating': {'num_classes': 3, 'max_return': 5.0},
  'feedback': {
    'label_budget': 60,
    'labels_per_session': 24,
    'session_interval': 160,
    'at_episode_end': False,
    'pretrain_steps': 160,
    'segment_steps': 5,
    'large_batch': 3,
  },
  'reward': {
    'hidden_size': 16,
    'hidden_layers': 2,
    'ensemble_size': 2,
    'max_passes': 5,
    'minibatch_size': 16,
    'min_ragged': 4,
  },
  'sac': {
    'hidden_size': 16,
    'batch_size': 32,
    'actor_learning_rate': 3e-3,
    'critic_learning_rate': 3e-3,
  },
  'ddpg': {'hidden_size': 16, 'batch_size': 32},
  'replay': {
    'num_envs': 4,
    'random_steps': 80,
    'chunk_steps': 80,
    'catch_up_updates': 5,
  },
  'pairs': {
    'label_budget': 30,
    'labels_per_session': 12,
    'session_interval': 160,
    'pretrain_steps': 160,
    'segment_steps': 5,
    'large_batch': 3,
  },
  'surf': {
    'unlabelled_per_label': 2,
    'unlabelled_ratio': 2,
    'reward_update': 20,
    'margin': 1,
    'crop': 1,
    'threshold': 0.6,
  },
  'mrn': {'interval': 160},
  'pretrain': {'num_epochs': 2},
  'kl': {'kl_batch': 64, 'min_segments': 3, 'refresh_every': 2},
}


def make_config(method: str, **changes: dict[str, Any]) -> Config:
  """The small configuration with changes by part."""
  parts = {}
  for field in dataclasses.fields(Config):
    part = getattr(Config(), field.name)
    values = SMALL.get(field.name, {}) | changes.get(field.name, {})
    parts[field.name] = dataclasses.replace(part, **values)
  # A name may say more: 'rbrl@sac', 'mrn+kl/both'.
  match = re.fullmatch(r'(\w+)(?:@(\w+))?(?:\+([\w,]+))?(?:/(\w+))?', method)
  assert match is not None
  name, agent, add, ask = (group or '' for group in match.groups())
  parts['run'] = dataclasses.replace(
    parts['run'], method=name, agent=agent, add=add, ask=ask
  )
  return Config(**parts)


def run(
  config: Config,
  env: Environment | None = None,
  num_seeds: int = 2,
  functions: Compiled | None = None,
  **kwargs: Any,
) -> tuple[Any, list[dict[str, Any]]]:
  """Runs a method to its end; the state and each chunk's metrics."""
  env = env or envs.make(config.run.task)
  rows: list[dict[str, Any]] = []
  trained = train(
    methods.make(config, env, **kwargs),
    env,
    rows=seed_keys(config.run.seed, num_seeds),
    total_env_steps=config.run.total_env_steps,
    functions=functions,
    listeners=(lambda env_steps, metrics: rows.append(metrics),),
  )
  return trained.state, rows


def session_of(algorithm: Algorithm, request: Request) -> Callable[..., Any]:
  """The feedback session of one seed, `state -> (state, metrics)`."""

  def session(state: Any) -> Any:
    state, queries, key = algorithm.session.propose(
      state, request.strategies, request.wanted
    )
    answers = algorithm.session.teach(queries, key)
    return algorithm.session.absorb(state, queries, answers, request.wanted)

  return session


def assert_reward_quality_is_reported(rows: list[dict[str, Any]]) -> None:
  """How good the learned reward is, from the moment that somebody has been asked."""
  names = {'held_out_accuracy', 'held_out_rank_correlation'}
  assert all(names <= set(row) for row in rows)
  assert np.isnan(rows[0]['held_out_accuracy']).all()
  assert np.isfinite(rows[-1]['learned_return']).all()
  for name, low in (('held_out_accuracy', 0.0), ('held_out_rank_correlation', -1.0)):
    values = rows[-1][name]
    assert ((values >= low) & (values <= 1.0)).all()
  assert 'learned_return' not in rows[0]


class ScrambledReward:
  """An environment whose `env_reward` is noise, if its state says so.

  The truth travels apart; `truth` reads it, as only the teacher may. Only `reset`
  knows `scramble`: programs of steps serve scrambled worlds and others alike.
  """

  def __init__(self, env: Environment, scramble: bool):
    self._env = env
    self._scramble = scramble
    for name in (
      'name',
      'observation_size',
      'action_size',
      'episode_length',
      'pose_size',
      'max_segment_return',
    ):
      setattr(self, name, getattr(env, name))

  def reset(self, key: Key, num_envs: int) -> EnvState:
    scramble = jnp.full(num_envs, self._scramble)
    return self._wrap(self._env.reset(key, num_envs), scramble)

  def step(self, state: EnvState, action: jax.Array) -> EnvState:
    inner, _, scramble = state.physics
    return self._wrap(self._env.step(state.replace(physics=inner), action), scramble)

  def pose(self, state: EnvState) -> jax.Array:
    return self._env.pose(state.replace(physics=state.physics[0]))

  def _wrap(self, state: EnvState, scramble: jax.Array) -> EnvState:
    truth = state.env_reward
    noise = jnp.sin(1e4 * truth + jnp.arange(truth.shape[0]) + state.steps)
    return state.replace(
      physics=(state.physics, truth, scramble),
      env_reward=jnp.where(scramble, noise, truth),
    )

  @staticmethod
  def truth(state: EnvState) -> jax.Array:
    return state.physics[1]


def run_shown_and_scrambled(
  config: Config, **kwargs: Any
) -> list[tuple[Any, list[dict[str, Any]]]]:
  """Two runs by the same programs; the second is shown noise for a reward."""
  worlds = [
    ScrambledReward(envs.make(config.run.task), scramble) for scramble in (False, True)
  ]
  functions = [
    compile_algorithm(methods.make(config, world, **kwargs)) for world in worlds
  ]
  return [
    run(config, world, functions=functions[0]._replace(init=one.init), **kwargs)
    for world, one in zip(worlds, functions, strict=True)
  ]
