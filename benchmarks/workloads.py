"""What is timed: physics, environment, rollout, and training chunk by chunk."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlfb_jax import envs, methods
from rlfb_jax.agents import ppo
from rlfb_jax.bin import launch
from rlfb_jax.envs.base import EnvState
from rlfb_jax.feedback.clips import Clip
from rlfb_jax.feedback.rating_store import append, init_ratings
from rlfb_jax.methods.algorithm import Request
from rlfb_jax.methods.collect import Experience, collect
from rlfb_jax.physics.host import HostSimulator
from rlfb_jax.reward.fit import make_rating_fit
from rlfb_jax.reward.model import make_reward_model
from rlfb_jax.training import loop, program

# Whatever the user's defaults become, these sizes are what is compared.
SIZES = {
  'num_envs': 32,
  'rollout_steps': 500,
  'num_epochs': 20,
  'minibatch_size': 128,
  'hidden_size': 256,
  'hidden_layers': 3,
}
TINY_SIZES = {
  'num_envs': 4,
  'rollout_steps': 8,
  'num_epochs': 1,
  'minibatch_size': 16,
  'hidden_size': 8,
  'hidden_layers': 2,
}
TINY_FLAGS = (
  '--total_env_steps=320',
  '--feedback_label_budget=8',
  '--feedback_labels_per_session=4',
  '--feedback_session_interval=32',
  '--feedback_pretrain_steps=32',
  '--feedback_segment_steps=4',
  '--pretrain_num_epochs=1',
  '--reward_hidden_size=8',
  '--reward_hidden_layers=1',
  '--reward_max_passes=2',
  '--kl_batch=16',
)


@dataclasses.dataclass(frozen=True)
class Workload:
  """Something that takes environment steps; `run` waits for its results.

  Attributes:
    name: as in the tables.
    env_steps: of one run, all seeds together.
    run: does it once; every time the same work.
  """

  name: str
  env_steps: int
  run: Callable[[], object]


def make_config(
  method: str, task: str, sizes: dict[str, int], tiny: bool
) -> methods.Config:
  """The configuration that `rlfb-train` would run with."""
  argv = [f'--ppo_{name}={value}' for name, value in sizes.items()]
  argv += TINY_FLAGS if tiny else ()
  return launch.parse([f'--method={method}', f'--task={task}', *argv])


def make_env(task: str, config: methods.Config, chunk_rollouts: int) -> Any:
  """The task on C MuJoCo, in episodes of as many rollouts as a chunk shall have.

  An episode of 1000 steps makes chunks of two rollouts of 500. With one, samples are
  taken twice as often; what a step costs stays the same.
  """
  length = config.ppo.rollout_steps * chunk_rollouts
  return envs.make(task, engine='native', episode_length=length)


def host_physics(env: Any, num_envs: int, num_steps: int) -> Workload:
  """C MuJoCo alone, on all cores: no JAX while the clock runs."""
  rows = np.asarray(
    jax.jit(env.reset, static_argnums=1)(_key(), num_envs).physics.engine
  )
  ctrl = np.asarray(env.to_ctrl(_actions(env, num_steps, num_envs)))
  host = HostSimulator(env.model, num_threads=0)

  def run() -> None:
    state = rows
    for now in ctrl:
      state, _, _ = host.step(state, now, env.task.substeps)

  return Workload('C physics', num_envs * num_steps, run)


def env_steps(env: Any, num_seeds: int, num_envs: int, num_steps: int) -> Workload:
  """The same, from inside a compiled program, with rewards and observations."""

  def one(state: EnvState, actions: jax.Array) -> EnvState:
    return jax.lax.scan(lambda s, a: (env.step(s, a), None), state, actions)[0]

  states = _starts(env, num_seeds, num_envs)
  actions = jnp.stack([_actions(env, num_steps, num_envs)] * num_seeds)
  program = jax.jit(jax.vmap(one))
  return Workload(
    'environment, jit',
    num_seeds * num_envs * num_steps,
    lambda: jax.block_until_ready(program(states, actions)),
  )


def rollout(
  env: Any, options: ppo.PPOOptions, num_seeds: int, num_steps: int
) -> Workload:
  """The policy acts and everything is recorded, as in training."""

  def one(agent: ppo.PPOState, state: EnvState) -> Experience:
    def actor(obs: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
      return ppo.act(agent, obs, key, options)

    return collect(env, actor, state, _key(), num_steps, lambda s: s.env_reward)[1]

  def init(key: jax.Array) -> ppo.PPOState:
    return ppo.init_state(key, env.observation_size, env.action_size, options)

  states = _starts(env, num_seeds, options.num_envs)
  agents = jax.jit(jax.vmap(init))(loop.seed_keys(0, num_seeds))
  program = jax.jit(jax.vmap(one))
  return Workload(
    'rollout with policy',
    num_seeds * options.num_envs * num_steps,
    lambda: jax.block_until_ready(program(agents, states)),
  )


def reward_passes(env: Any, config: methods.Config, num_passes: int) -> Workload:
  """Passes of the reward model over a full store of labels.

  The labels are random, so that no pass is accurate enough to end the fit.
  """
  options = dataclasses.replace(config.reward, max_passes=num_passes)
  fit = jax.jit(make_rating_fit(options, config.rating.num_classes))
  sizes = env.observation_size, env.action_size, env.pose_size
  capacity, length = config.feedback.label_budget, config.feedback.segment_steps
  keys = jax.random.split(_key(), 5)
  clip = Clip(
    *(
      jax.random.normal(key, (capacity, length, size))
      for key, size in zip(keys, sizes, strict=False)
    )
  )
  ratings = jax.random.randint(keys[3], (capacity,), 0, config.rating.num_classes)
  skipped = jnp.zeros(capacity, bool)
  store = append(
    init_ratings(capacity, length, *sizes), clip, ratings, skipped, env_steps=0
  )
  model = make_reward_model(options, *sizes[:2]).init(keys[4])
  return Workload(
    'reward passes', 0, lambda: jax.block_until_ready(fit(_key(), model, store))
  )


class Training:
  """A method between its chunks, as `rlfb_jax.training.loop.train` drives it.

  Attributes:
    method: its name.
    num_seeds: S.
    chunk_steps: environment steps of one seed in a chunk.
    pretrain_chunks: chunks of pre-training in a run.
    sessions: labelling sessions of a run, `(labels, strategy)`.
    total_env_steps: of one seed in a run.
  """

  def __init__(self, env: Any, config: methods.Config, num_seeds: int):
    algorithm = methods.make(config, env)
    self.method = config.run.method
    self.num_seeds = num_seeds
    self.chunk_steps = algorithm.steps_per_chunk
    self.total_env_steps = config.total_env_steps
    starts = range(0, self.total_env_steps, self.chunk_steps)
    self.pretrain_chunks = sum(algorithm.phase(t) == 'explore' for t in starts)
    requests = [algorithm.request(t) for t in starts]
    self.sessions = [request for request in requests if request is not None]
    self._repeats = {
      name: self.chunk_steps // algorithm.steps_of(name) for name in algorithm.chunks
    }
    self._functions = program.compile_algorithm(algorithm)
    self._state = self._functions.init(loop.seed_keys(0, num_seeds))

  def with_seeds(self, num_seeds: int) -> 'Training':
    """Another that goes on from here, with as many seeds equal to the first."""
    other = copy.copy(self)
    other.num_seeds = num_seeds
    other._state = side_by_side(jax.tree.map(lambda x: x[0], self._state), num_seeds)
    return other

  def chunk(self, phase: str = 'learn') -> None:
    """A chunk's steps and what follows them: diagnosis, and metrics on the host."""
    for _ in range(self._repeats.get(phase, 1)):
      self._state, metrics = self._functions.chunks[phase](self._state)
      if self._functions.diagnose is not None:
        self._state, watched = self._functions.diagnose(self._state)
        metrics |= watched
      jax.device_get(metrics)

  def session(self, request: Request) -> int:
    """One labelling session; returns the reward model's passes, over all seeds."""
    assert self._functions.session is not None
    wanted = jax.tree.map(jnp.int32, request.wanted)
    self._state, metrics = self._functions.session(
      self._state, wanted, request.strategies
    )
    return int(np.sum(jax.device_get(metrics)['reward_passes']))

  def learn(self) -> Workload:
    """The steady state: chunk after chunk."""
    return Workload(self.method, self.num_seeds * self.chunk_steps, self.chunk)


def side_by_side(state: Any, num_seeds: int) -> Any:
  """Equal seeds, leaves [S, ...]: wide orthogonal matrices take seconds each."""
  return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_seeds, *x.shape)), state)


def _key() -> jax.Array:
  return jax.random.key(0)


def _actions(env: Any, num_steps: int, num_envs: int) -> jax.Array:
  shape = num_steps, num_envs, env.action_size
  return jax.random.uniform(_key(), shape, minval=-1.0, maxval=1.0)


def _starts(env: Any, num_seeds: int, num_envs: int) -> EnvState:
  reset = jax.jit(jax.vmap(lambda key: env.reset(key, num_envs)))
  return reset(loop.seed_keys(0, num_seeds))
