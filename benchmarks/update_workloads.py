"""What `updates.py` times: updates, steps, bi-level steps, reward fits, relabelling."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import passes
from rounds import Program

from rlfb_jax import methods
from rlfb_jax.agents import off_policy
from rlfb_jax.agents.ddpg import DDPGOptions, make_ddpg
from rlfb_jax.agents.sac import SACOptions, make_sac
from rlfb_jax.bin import train
from rlfb_jax.core import replay as replay_lib
from rlfb_jax.core.batching import one_seed_at_a_time
from rlfb_jax.feedback import preferences
from rlfb_jax.feedback.clips import Clip
from rlfb_jax.reward.fit import make_fit
from rlfb_jax.reward.model import make_reward_model
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.preferences import PreferenceLossOptions
from rlfb_jax.training import loop

_BATCHES = 4  # That updates take turns with.
SEGMENT_STEPS = 50


@dataclasses.dataclass(frozen=True)
class Size:
  """An agent's size, and how its loop is cut for timing.

  Attributes:
    hidden: widths of the hidden layers of actor and critics.
    batch: transitions in a gradient step.
    observation_size: ds.
    action_size: da.
    chunk_steps: environment steps in one timed call of the loop.
    capacity: rows of the replay buffer meanwhile. A call copies it once: short calls
      take a smaller one, so that its share is what it is in chunks of 1000 steps.
  """

  hidden: tuple[int, ...]
  batch: int
  observation_size: int = 24
  action_size: int = 6
  chunk_steps: int = 0
  capacity: int = 0


SIZES = {
  'walker': Size((1024, 1024), 1024, chunk_steps=20, capacity=20_000),
  'metaworld': Size((256, 256, 256), 512, 39, 4),
  'small': Size((256, 256), 256, chunk_steps=500, capacity=500_000),
}
REWARD_HIDDEN = (256, 256, 256)
QUICK_SIZES = {'small': Size((8, 8), 16, chunk_steps=4, capacity=64)}
QUICK_REWARD_HIDDEN = (8,)


def make_agent(name: str, size: Size) -> off_policy.OffPolicyAgent:
  """SAC or DDPG of that size, all else by default."""
  shape = {
    'batch_size': size.batch,
    'hidden_size': size.hidden[0],
    'hidden_layers': len(size.hidden),
  }
  sizes = size.observation_size, size.action_size
  if name == 'sac':
    return make_sac(SACOptions(**shape), *sizes)
  return make_ddpg(DDPGOptions(**shape), *sizes)


@functools.cache
def agent_state(name: str, size: Size) -> Any:
  """A fresh state; made once, since orthogonal weights take seconds."""
  return jax.jit(make_agent(name, size).init)(jax.random.key(0))


@functools.cache
def updates(name: str, size: Size, num_seeds: int) -> Program:
  """Updates in one compiled loop, as the learn chunk makes them; counted per seed."""
  agent = make_agent(name, size)

  @one_seed_at_a_time
  def one(
    state: Any, batches: off_policy.Transitions, rewards: jax.Array, count: jax.Array
  ) -> Any:
    def update(i: jax.Array, state: Any) -> Any:
      batch, reward = jax.tree.map(
        lambda x: jax.lax.dynamic_index_in_dim(x, i % _BATCHES, keepdims=False),
        (batches, rewards),
      )
      key = jax.random.fold_in(jax.random.key(1), i)
      return off_policy.update(agent, state, batch, reward, key, i)[0]

    return jax.lax.fori_loop(0, count, update, state)

  program = jax.jit(jax.vmap(one, in_axes=(0, None, None, None)), donate_argnums=0)
  lead = _BATCHES, size.batch
  rewards = _random(lead)
  batches = off_policy.Transitions(
    obs=_random((*lead, size.observation_size)),
    action=_random((*lead, size.action_size)),
    next_obs=_random((*lead, size.observation_size)),
    terminated=np.zeros(lead, bool),
    truncated=np.zeros(lead, bool),
  )
  held = [_stacked(agent_state(name, size), num_seeds)]

  def run(count: int) -> None:
    held[0] = jax.block_until_ready(
      program(held[0], batches, rewards, jnp.int32(count))
    )

  # States are copied once a call, seed by seed: a few updates each make up for it.
  least = 5 if num_seeds > 1 else 1
  return Program(f'{name} update', run, num_seeds, least)


def update_products(name: str, size: Size) -> list[Program]:
  """The products of one update alone, in every way of writing them."""
  found = passes.update_passes(
    name, size.observation_size, size.action_size, size.hidden, size.batch
  )
  return product_programs(found)


def product_programs(found: list[passes.Pass], units: float = 1.0) -> list[Program]:
  """Loops over these passes, one for each way of writing products."""
  return [Program(way, passes.make_loop(found, way), units) for way in passes.WAYS]


def parse(preset: str, size: Size | None, *flags: str) -> methods.Config:
  """A preset's run on walker_walk, of that size and cut as it says."""
  shape = []
  if size is not None:
    shape = [
      f'--sac_hidden_size={size.hidden[0]}',
      f'--sac_hidden_layers={len(size.hidden)}',
      f'--sac_batch_size={size.batch}',
      f'--replay_chunk_steps={size.chunk_steps}',
      f'--replay_capacity={size.capacity}',
    ]
  return train.parse([f'--preset={preset}', '--task=walker_walk', *shape, *flags])


class Runs:
  """SAC, PEBBLE and MRN of one size, in the midst of learning.

  The replay buffer is full of random rows and the store of random answers: what is
  stored does not change what a step costs.
  """

  def __init__(self, size: Size, flags: tuple[str, ...]):
    """Makes the states.

    Args:
      size: of agent and loop.
      flags: further ones for all methods.
    """
    self._size, self._flags = size, flags
    config = parse('mrn_walker', size, *flags)
    self._env = train.make_environment(config)
    self._mrn = self._stir(self._compile(config).init(loop.seed_keys(0, 1)))

  def _compile(self, config: methods.Config) -> loop.Compiled:
    return loop.compile_algorithm(methods.make(config, self._env))

  def _stir(self, state: Any) -> Any:
    """The state with its replay buffer and its answers filled, [1, ...]."""
    store = _answers(state.feedback.answers.pairs.asked)
    memory = state.feedback.answers.pairs.replace(asked=store)
    answers = state.feedback.answers._replace(pairs=memory)
    return state.replace(
      feedback=state.feedback.replace(answers=answers),
      replay=_full(state.replay, state.replay.rows.shape[1]),
    )

  def steps(self) -> list[Program]:
    """Environment steps of the learn chunks of SAC and of PEBBLE."""
    return [self._chunk('sac', 'learn'), self._chunk('pebble_walker', 'learn')]

  def phases(self) -> list[Program]:
    """Environment steps of PEBBLE's phases before anybody has been asked."""
    return [
      self._chunk('pebble_walker', phase, f'{phase} step')
      for phase in ('random', 'explore')
    ]

  def _chunk(self, preset: str, phase: str, name: str = '') -> Program:
    config = parse(preset, self._size, *self._flags)
    if preset == 'sac':
      pay = self._mrn.replay.pay[..., :1]
      replay = self._mrn.replay.replace(pay=pay)
      state = self._mrn.replace(feedback=None, novelty=None, replay=replay)
    else:
      state = self._mrn.replace(feedback=self._mrn.feedback.replace(outer=None))
    name = name or f'{config.run.method} step'
    return _repeat(
      name, self._compile(config).chunks[phase], state, self._size.chunk_steps
    )

  def bilevel(self, relabelled: int, capacity: int) -> list[Program]:
    """Bi-level steps of MRN, and the update that they are compared with.

    A call copies the replay buffer: where nothing is relabelled it is small.

    Args:
      relabelled: transitions that the replay buffer holds where it is relabelled.
      capacity: rows that it has there.
    """
    found = [updates('sac', self._size, 1)]
    for name, flags in BILEVEL.items():
      config = parse('mrn_walker', self._size, *self._flags, *flags)
      step = self._compile(config).events['outer_step']
      if 'relabelling' in name:
        replay = _full(self._mrn.replay, capacity, relabelled)
      else:
        replay = _full(self._mrn.replay, 4 * self._size.batch)
      found.append(_repeat(name, step, self._mrn.replace(replay=replay)))
    return found


# What is timed -> its flags; rewards that are asked for anew need no relabelling.
BILEVEL = {
  'bi-level step': ('--replay_fresh_labels',),
  'bi-level step, supervised gradient unmeasured': (
    '--replay_fresh_labels',
    '--nomrn_measure_supervised',
  ),
  'bi-level step with relabelling': (),
}


def _repeat(
  name: str, function: Callable[[Any], Any], state: Any, units: int = 1
) -> Program:
  """Calls of a function from state to state, each of which takes over the last."""
  held = [_copy(state)]  # They are donated.

  def run(count: int) -> None:
    for _ in range(count):
      held[0] = function(held[0])[0]
    jax.block_until_ready(held[0])

  return Program(name, run, units)


def _random(shape: tuple[int, ...]) -> np.ndarray:
  """Uniform in [-1, 1], float32."""
  rng = np.random.default_rng(0)
  return 2.0 * rng.random(shape, np.float32) - np.float32(1.0)


@functools.partial(jax.jit, static_argnums=1)
def _stacked(tree: Any, count: int) -> Any:
  return jax.tree.map(lambda x: jnp.stack([x] * count), tree)


@jax.jit
def _copy(tree: Any) -> Any:
  return jax.tree.map(jnp.copy, tree)


def _full(like: Any, capacity: int, filled: int = 0) -> Any:
  """A replay buffer of one seed with random rows, [1, ...]; full by default."""
  filled = filled or capacity
  return like.replace(
    rows=_random((1, capacity, like.rows.shape[-1])),
    pay=_random((1, capacity, like.pay.shape[-1])),
    head=np.full(1, filled % capacity, np.int32),
    filled=np.full(1, filled, np.int32),
  )


def _answers(like: preferences.PreferenceStore) -> preferences.PreferenceStore:
  """A full store of the same shape with random answers, maybe of several seeds."""

  def clip(shape: Clip) -> Clip:
    return jax.tree.map(lambda x: _random(x.shape), shape)

  capacity = like.label.shape[-1]
  count = np.full(like.count.shape, capacity, np.int32)
  return like.replace(
    first=clip(like.first),
    second=jax.tree.map(np.negative, clip(like.second)),
    label=(_random(like.label.shape) > 0).astype(np.float32),
    count=count,
    asked=count,
  )


def reward_options(hidden: tuple[int, ...], max_passes: int) -> RewardOptions:
  """PEBBLE's ensemble in a session that is never accurate enough to end."""
  return RewardOptions(
    hidden_size=hidden[0],
    hidden_layers=len(hidden),
    whiten=False,
    max_passes=max_passes,
    stop_accuracy=1.0,
  )


def fit_programs(
  hidden: tuple[int, ...], num_labels: int, num_passes: int
) -> tuple[list[Program], int]:
  """Passes of the reward fit over so many pairs, and their products alone.

  Minibatches are padded to full ones; the products are of real labels only.

  Returns:
    The programs, and the floating-point operations of a pass.
  """
  sizes = SIZES['small'].observation_size, SIZES['small'].action_size
  options = reward_options(hidden, num_passes)
  fit = jax.jit(make_fit(options, None, PreferenceLossOptions()))
  model = jax.jit(make_reward_model(options, *sizes).init)(jax.random.key(0))
  store = _answers(preferences.init_preferences(num_labels, SEGMENT_STEPS, *sizes, 1))

  def run(count: int) -> None:
    for i in range(count):
      state, _ = fit(jax.random.key(i), model, None, store, None)
      jax.block_until_ready(state)

  batches = -(-num_labels // options.minibatch_size)
  rows = 2 * SEGMENT_STEPS * num_labels // batches
  found = passes.reward_passes(
    sum(sizes), hidden, options.ensemble_size, rows, learns=True
  )
  programs = [Program('reward fit', run, num_passes)]
  flops = batches * passes.count_flops(found)
  return [*programs, *product_programs(found, 1 / batches)], flops


def relabel_programs(
  hidden: tuple[int, ...], transitions: int
) -> tuple[list[Program], int]:
  """Relabelling of a full replay buffer, and its products alone.

  Returns:
    The programs, and the floating-point operations of one relabelling.
  """
  sizes = SIZES['small'].observation_size, SIZES['small'].action_size
  options = reward_options(hidden, 1)
  model = make_reward_model(options, *sizes)
  widths = (*sizes, sizes[0], 1, 1)

  @functools.partial(jax.jit, donate_argnums=0)
  def relabel(replay: replay_lib.Replay, state: Any) -> tuple[replay_lib.Replay, Any]:
    paid = replay_lib.relabel(
      replay, lambda fields: model.r_hat_members(state, fields[0], fields[1]).T
    )
    return paid, None

  state = jax.jit(model.init)(jax.random.key(0))
  replay = replay_lib.init_replay(transitions, widths, options.ensemble_size)
  replay = jax.tree.map(lambda x: x[0], _full(replay, transitions))
  rows = min(replay_lib.CHUNK_ROWS, transitions)
  found = passes.reward_passes(
    sum(sizes), hidden, options.ensemble_size, rows, learns=False
  )
  programs = [_repeat('relabelling', lambda r: relabel(r, state), replay)]
  flops = passes.count_flops(found) * transitions // rows
  return [*programs, *product_programs(found, rows / transitions)], flops
