"""What `updates.py` times: updates, iterations, bi-level steps, fits, relabelling."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import products
import update_products
from baselines import brax_sac
from measure import name_of
from taking_turns import Piece
from workloads import Training, side_by_side

from rlfb_jax import envs, methods
from rlfb_jax.agents.ddpg import DDPGOptions, make_ddpg
from rlfb_jax.agents.off_policy import OffPolicyAgent, Transitions, update
from rlfb_jax.agents.sac import SACOptions, make_sac
from rlfb_jax.bin import launch
from rlfb_jax.core import replay as replay_lib
from rlfb_jax.core.batching import one_seed_at_a_time
from rlfb_jax.core.replay import Replay
from rlfb_jax.core.types import Key
from rlfb_jax.feedback.clips import Clip
from rlfb_jax.feedback.preference_store import append, init_preferences
from rlfb_jax.methods.off_policy_parts import transitions_of
from rlfb_jax.reward.fit import make_fit
from rlfb_jax.reward.model import make_reward_model
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.preferences import PreferenceLossOptions
from rlfb_jax.training import loop, program

# Rows to draw batches from: what is drawn matters, how many there are does not.
REPLAY_ROWS = 20_000


class Size(NamedTuple):
  """An agent's shapes.

  Attributes:
    name: as in the tables.
    hidden_size: width of actor and critics.
    hidden_layers: their hidden layers.
    batch_size: B.
    observation_size: ds.
    action_size: da.
  """

  name: str
  hidden_size: int
  hidden_layers: int
  batch_size: int
  observation_size: int
  action_size: int

  @property
  def hidden(self) -> list[int]:
    """Widths of the hidden layers."""
    return [self.hidden_size] * self.hidden_layers

  @property
  def text(self) -> str:
    """As in `1024x2, batch 1024`."""
    return f'{self.hidden_size}x{self.hidden_layers}, batch {self.batch_size}'

  @property
  def shape_options(self) -> dict[str, Any]:
    """Options of an agent."""
    names = 'hidden_size', 'hidden_layers', 'batch_size'
    return {name: getattr(self, name) for name in names}


SIZES = (
  Size('walker', 1024, 2, 1024, 24, 6),
  Size('metaworld', 256, 3, 512, 39, 4),
  Size('small', 256, 2, 256, 24, 6),
)
QUICK_SIZES = (Size('walker', 16, 2, 16, 24, 6),)


def update_products_of(agent: str, size: Size) -> Piece:
  """The products of one update of 'sac' or 'ddpg'."""
  passes = passes_of(agent, size)
  run = update_products.make_products(passes, size.batch_size)
  return Piece(f'products {agent}', run)


def passes_of(agent: str, size: Size) -> list[products.Pass]:
  """What one update multiplies."""
  of = {'sac': update_products.sac_update, 'ddpg': update_products.ddpg_update}
  return of[agent](size.observation_size, size.action_size, size.hidden)


def updates(
  agent: str, size: Size, num_seeds: int, jit: program.Jit = jax.jit
) -> Piece:
  """Updates in a compiled loop, each on a batch drawn from a replay buffer.

  The samples are seconds per update of one seed; seeds are visited as in training.

  Args:
    agent: 'sac' or 'ddpg'.
    size: of the agent.
    num_seeds: side by side.
    jit: what compiles the loop.
  """
  made = _agent(agent, size)
  widths = size.observation_size, size.action_size, size.observation_size, 1, 1
  replay = _random_replay(REPLAY_ROWS, widths, 1)
  states = side_by_side(jax.jit(made.init)(jax.random.key(0)), num_seeds)

  def seed(state: Any, key: Key, replay: Replay, count: jax.Array) -> Any:
    def one(i: jax.Array, state: Any) -> Any:
      draw_key, update_key = jax.random.split(jax.random.fold_in(key, i))
      index = replay_lib.draw(draw_key, replay, (size.batch_size,))
      fields, rewards = replay_lib.gather(replay, index)
      batch = transitions_of(fields)
      return update(made, state, batch, rewards[:, 0], update_key, i)[0]

    return jax.lax.fori_loop(0, count, one, state)

  run_all = jit(
    jax.vmap(one_seed_at_a_time(seed), in_axes=(0, 0, None, None)), donate_argnums=0
  )
  held = [states]
  keys = loop.seed_keys(1, num_seeds)

  def run(n: int) -> None:
    held[0] = jax.block_until_ready(run_all(held[0], keys, replay, jnp.int32(n)))

  # Each seed's state is copied in and out once a call, as it is once a chunk of 1000
  # steps in training: enough updates a call to make it as small.
  name = name_of(agent, num_seeds)
  return Piece(name, run, per=num_seeds, least=1 if num_seeds == 1 else 15)


def brax_updates(size: Size) -> Piece:
  """brax's SAC on the same batches, one seed; see `baselines/brax_sac.py`."""
  widths = size.observation_size, size.action_size, size.observation_size, 1, 1
  replay = _random_replay(REPLAY_ROWS, widths, 1)

  def draw(key: Key) -> tuple[Transitions, jax.Array]:
    index = replay_lib.draw(key, replay, (size.batch_size,))
    fields, rewards = replay_lib.gather(replay, index)
    return transitions_of(fields), rewards[:, 0]

  run = brax_sac.make_updates(
    size.observation_size, size.action_size, size.hidden, draw
  )
  return Piece('brax sac', run)


def _agent(agent: str, size: Size) -> OffPolicyAgent:
  sizes = size.observation_size, size.action_size
  if agent == 'sac':
    return make_sac(SACOptions(**size.shape_options), *sizes)
  return make_ddpg(DDPGOptions(**size.shape_options), *sizes)


def _random_replay(rows: int, widths: Sequence[int], reward_width: int) -> Replay:
  """A full buffer of Normal numbers, in which nothing ever ends."""
  key = jax.random.key(2)
  replay = replay_lib.init_replay(rows, widths, reward_width)
  noise = jax.random.normal(key, replay.rows.shape).at[:, -2:].set(0.0)
  rewards = jax.random.normal(jax.random.fold_in(key, 1), replay.rewards.shape)
  return replay.replace(rows=noise, rewards=rewards, filled=jnp.int32(rows))


def make_config(
  method: str, size: Size, chunk_steps: int, capacity: int, *flags: str
) -> methods.Config:
  """What `rlfb-train` would run, in smaller chunks and with a smaller buffer."""
  sizes = [f'--sac_{name}={value}' for name, value in size.shape_options.items()]
  return launch.parse(
    [
      f'--preset={"pebble_walker" if method == "sac" else method + "_walker"}',
      f'--method={method}',
      f'--replay_chunk_steps={chunk_steps}',
      f'--replay_capacity={capacity}',
      *sizes,
      *flags,
    ]
  )


def iterations(
  method: str,
  size: Size,
  chunk_steps: int,
  phases: Mapping[str, str],
  *flags: str,
  seeds: Sequence[int] = (1,),
) -> list[Piece]:
  """Environment step, label and update: chunks of the run itself.

  Args:
    method: of `rlfb-train`.
    size: of SAC.
    chunk_steps: environment steps in a chunk.
    phases: to be timed, by the names of their pieces.
    flags: further ones of the run.
    seeds: numbers of them side by side, each to be timed.
  """
  config = make_config(method, size, chunk_steps, REPLAY_ROWS, *flags)
  training = Training(envs.make('walker_walk', engine='native'), config, 1)
  for _ in range(-(-size.batch_size // chunk_steps)):
    training.chunk('random')

  def piece(training: Training, name: str, phase: str) -> Piece:
    def run(n: int) -> None:
      for _ in range(n):
        training.chunk(phase)

    per = training.num_seeds * chunk_steps
    return Piece(name_of(name, training.num_seeds), run, per)

  return [
    piece(several, name, phase)
    for several in map(training.with_seeds, seeds)
    for name, phase in phases.items()
  ]


def bilevel_steps(size: Size, rows: int) -> list[Piece]:
  """MRN's event between two chunks, over a full buffer and a full store.

  As it is but for relabelling (each batch is labelled as it is drawn), the same
  without measuring the supervised gradient, and as it is.

  Args:
    size: of SAC.
    rows: transitions in the buffer, all to be relabelled.
  """
  plain = _mrn(size, rows, relabels=False, measures=True)
  bare = _mrn(size, rows, relabels=False, measures=False)
  whole = _mrn(size, rows, relabels=True, measures=True)
  state = _taught(plain.init(loop.seed_keys(0, 1)), rows)
  return [
    _events('bi-level', plain, state, 1),
    _events('bi-level, nothing measured', bare, state, 1),
    _events(f'bi-level, relabelling {rows:,}', whole, state, 1),
  ]


def bilevel_steps_of_seeds(size: Size, rows: int, seeds: Sequence[int]) -> list[Piece]:
  """The same event without relabelling, of several numbers of seeds side by side."""
  plain = _mrn(size, rows, relabels=False, measures=True)
  state = _taught(plain.init(loop.seed_keys(0, 1)), rows)
  return [_events('bi-level', plain, state, count) for count in seeds]


def _mrn(size: Size, rows: int, relabels: bool, measures: bool) -> program.Compiled:
  """A run of MRN on walker."""
  flags = (
    f'--replay_fresh_labels={str(not relabels).lower()}',
    f'--mrn_measure_supervised={str(measures).lower()}',
  )
  config = make_config('mrn', size, 1000, rows, *flags)
  env = envs.make('walker_walk', engine='native')
  return program.compile_algorithm(methods.make(config, env))


def _events(name: str, functions: program.Compiled, state: Any, seeds: int) -> Piece:
  """Event after event, from the first seed of a state on."""
  held = [side_by_side(jax.tree.map(lambda x: x[0], state), seeds)]

  def run(n: int) -> None:
    for _ in range(n):
      held[0], _ = functions.events['outer_step'](held[0])
    jax.block_until_ready(held[0])

  return Piece(name_of(name, seeds), run, per=seeds)


def _taught(state: Any, rows: int) -> Any:
  """A run of one seed whose buffer and store of pairs are full."""
  full = _random_replay(rows, state.replay.widths, state.replay.rewards.shape[-1])
  answers, pairs = state.feedback.answers, state.feedback.answers.pairs
  labels = jnp.arange(pairs.asked.label.shape[1], dtype=jnp.float32)[None] % 2
  count = jnp.full((1,), labels.size, jnp.int32)
  pairs = pairs.replace(asked=pairs.asked.replace(label=labels, count=count))
  feedback = state.feedback.replace(answers=answers._replace(pairs=pairs))
  return state.replace(replay=jax.tree.map(lambda x: x[None], full), feedback=feedback)


def reward_fit(
  reward: RewardOptions,
  size: Size,
  labels: int,
  segment_steps: int,
  passes: int,
  num_seeds: int = 1,
) -> Piece:
  """Passes of the reward model over random answers about pairs.

  Args:
    reward: of the model.
    size: whose observations and actions are judged.
    labels: of each seed.
    segment_steps: H.
    passes: in one fit.
    num_seeds: side by side, as in a session of the method.
  """
  # No pass is accurate enough to end the fit.
  options = dataclasses.replace(reward, max_passes=passes, stop_accuracy=1.0)
  sizes = size.observation_size, size.action_size, 1
  keys = jax.random.split(jax.random.key(3), 8)

  def side(keys: jax.Array) -> Clip:
    shapes = [(labels, segment_steps, width) for width in sizes]
    return Clip(*(jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)))

  store = append(
    init_preferences(labels, segment_steps, *sizes),
    side(keys[:3]),
    side(keys[3:6]),
    jax.random.bernoulli(keys[6], 0.5, (labels,)).astype(jnp.float32),
    jnp.zeros(labels, bool),
    env_steps=0,
  )
  fit = make_fit(options, None, PreferenceLossOptions())
  fit_all = jax.jit(jax.vmap(one_seed_at_a_time(fit)))
  model = make_reward_model(options, *sizes[:2]).init(keys[7])
  models, stores = side_by_side((model, store), num_seeds)
  seeds = loop.seed_keys(3, num_seeds)

  def run(n: int) -> None:
    for _ in range(n):
      _, metrics = jax.block_until_ready(fit_all(seeds, models, None, stores, None))
    made = metrics['reward_passes'].tolist()
    if set(made) != {passes}:
      raise RuntimeError(f'{made} passes were made, not {passes}.')

  name = name_of(f'pass over {labels:,} labels', num_seeds)
  return Piece(name, run, per=num_seeds * passes)


def reward_products(
  reward: RewardOptions, size: Size, rows: int, trains: bool
) -> Piece:
  """What all members multiply for so many rows."""
  passes = reward_passes(reward, size, trains)
  name = 'products of training' if trains else 'products of relabelling'
  return Piece(name, update_products.make_products(passes, rows))


def reward_passes(
  reward: RewardOptions, size: Size, trains: bool
) -> list[products.Pass]:
  """Every member once, backwards too where it is trained."""
  inputs = size.observation_size + size.action_size
  hidden = [reward.hidden_size] * reward.hidden_layers
  one = products.Pass((inputs, *hidden, 1), weights=trains)
  return [one] * reward.ensemble_size


def relabelling(
  reward: RewardOptions, size: Size, rows: Sequence[int], num_seeds: int = 1
) -> list[Piece]:
  """Rewriting what so many transitions are paid, in a buffer as large as the most.

  Args:
    reward: of the model.
    size: whose observations and actions are judged.
    rows: transitions of each seed.
    num_seeds: side by side, as in a session of the method.
  """
  widths = size.observation_size, size.action_size, size.observation_size, 1, 1
  model = make_reward_model(reward, *widths[:2])
  state = model.init(jax.random.key(4))

  def one(replay: Replay, state: Any) -> Replay:
    return replay_lib.relabel(
      replay, lambda fields: model.r_hat_members(state, fields[0], fields[1]).T
    )

  relabel_all = jax.jit(jax.vmap(one_seed_at_a_time(one)), donate_argnums=0)
  replay = _random_replay(max(rows), widths, reward.ensemble_size)
  held = [side_by_side(replay, num_seeds)]
  states = side_by_side(state, num_seeds)

  def piece(count: int) -> Piece:
    def run(n: int) -> None:
      for _ in range(n):
        filled = jnp.full(num_seeds, count, jnp.int32)
        held[0] = relabel_all(held[0].replace(filled=filled), states)
      jax.block_until_ready(held[0])

    return Piece(name_of(f'relabelling {count:,}', num_seeds), run, per=num_seeds)

  return [piece(count) for count in rows]
