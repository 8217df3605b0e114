"""Gradient steps of agents with a replay buffer that come between chunks."""

import functools
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax import envs, methods
from rlfb_jax.agents.off_policy import update
from rlfb_jax.agents.regulariser import Regulariser
from rlfb_jax.agents.sac import SACOptions, make_sac
from rlfb_jax.core import replay as replay_lib
from rlfb_jax.methods.make import _meta, make_agent, make_combine
from rlfb_jax.methods.off_policy_learner import OffPolicyLearner
from rlfb_jax.methods.off_policy_parts import (
  OffPolicyIntervention,
  OffPolicyState,
  OuterStep,
  transitions_of,
)
from rlfb_jax.reward.model import make_reward_model
from tests.methods.probe_runs import make_config, session_of

ENV = envs.make('probe_choice')
METHODS = ('mrn', 'mrn+rune/both')
RATIO = 0.5
FIRST_SESSION = 160


def configure(method, ratio=RATIO, **mrn):
  """An outer step that moves the reward by more than rounding does.

  And curiosity that a clock with another start would pay otherwise.
  """
  return make_config(
    method,
    run={'total_env_steps': 640, 'updates_per_step': ratio},
    mrn={'learning_rate': 1e-2} | mrn,
    rune={'bonus': 0.5, 'decay': 1e-2},
    # Not the critics': the step in thought must take theirs.
    sac={'actor_learning_rate': 1e-3},
  )


@functools.cache
def states(method):
  """One seed after each stage from its start to its first chunk of learning."""
  algorithm = methods.make(configure(method), ENV)
  stages = {
    'random': algorithm.chunks['random'],
    'explore': algorithm.chunks['explore'],
    'session': session_of(algorithm, algorithm.request(FIRST_SESSION)),
    'begin_learning': algorithm.events['begin_learning'],
    'learn': algorithm.chunks['learn'],
  }
  state = jax.jit(algorithm.init)(jax.random.key(0))
  seen = {}
  for name, stage in stages.items():
    state, _ = jax.jit(stage)(state)
    seen[name] = state
  return seen


@functools.cache
def outer_step(method, **mrn):
  """The bi-level step as a program of one seed."""
  return jax.jit(methods.make(configure(method, **mrn), ENV).events['outer_step'])


@functools.cache
def outer_stepped(method, **mrn):
  return outer_step(method, **mrn)(states(method)['learn'])


def members(config, state, obs, action):
  """What the reward ensemble says, [K, B]."""
  model = make_reward_model(config.reward, ENV.observation_size, ENV.action_size)
  return model.r_hat_members(state.feedback.reward_model, obs, action)


def combine_of(config):
  """What the agent is paid for what they say."""
  return make_combine(
    config.reward, config.rune if 'rune' in config.recipe.add else None
  )


def drawn(state, key, size):
  """The batch that a key of sampling stands for, and what is stored beside it."""
  batch_key, _ = jax.random.split(key)
  index = replay_lib.draw(batch_key, state.replay, (size,))
  fields, rewards = replay_lib.gather(state.replay, index)
  return transitions_of(fields), rewards


@pytest.mark.parametrize('method', METHODS)
def test_after_an_outer_step_all_rows_held_are_paid_by_the_new_reward(method):
  before = states(method)['learn']
  after, _ = outer_stepped(method, time_limits_terminal=True)
  held = int(after.replay.filled)
  assert held == 240
  obs, action, *_ = replay_lib.unpack(after.replay.rows[:held], after.replay.widths)
  expected = members(configure(method), after, obs, action).T
  np.testing.assert_allclose(after.replay.rewards[:held], expected, atol=1e-5)
  assert np.abs(after.replay.rewards[:held] - before.replay.rewards[:held]).max() > 1e-2


@pytest.mark.parametrize(
  ('method', 'terminal'), [('mrn', True), ('mrn', False), ('mrn+rune/both', True)]
)
def test_the_agent_learns_at_once_from_what_the_new_reward_pays(method, terminal):
  config = configure(method)
  agent = make_agent(config, ENV)
  before = states(method)['learn']
  after, _ = outer_stepped(method, time_limits_terminal=terminal)
  key, batch_key, _, next_key, _, learn_key, _ = jax.random.split(before.key, 7)
  batch, _ = drawn(before, batch_key, config.sac.batch_size)
  values = agent.next_values(before.agent, batch, next_key)
  combine = combine_of(config)
  ended = np.asarray(batch.truncated) & terminal
  assert ended.any() == terminal

  def learned_from(state, env_steps=before.env_steps):
    said = members(config, state, batch.obs, batch.action)
    rewards = combine(said, env_steps)
    targets = rewards + config.sac.discount * np.where(ended, 0.0, values)
    return jax.jit(agent.learn)(
      before.agent, batch, targets, learn_key, before.updates, None
    )[0]

  expected = learned_from(after)
  chex.assert_trees_all_close(after.agent, expected, atol=1e-5, rtol=1e-4)
  # The reward of the moment before would have taught something else, and so would
  # curiosity that begins to fade at the first session.
  others = [learned_from(before)]
  if 'rune' in method:
    others.append(learned_from(after, before.env_steps - FIRST_SESSION))
  for other in others:
    with pytest.raises(AssertionError):
      chex.assert_trees_all_close(other.critic, expected.critic, atol=1e-5, rtol=1e-4)
  assert int(after.updates) == int(before.updates) + 1
  assert int(after.env_steps) == int(before.env_steps)
  assert bool(jnp.all(jax.random.key_data(after.key) == jax.random.key_data(key)))


@pytest.mark.parametrize('method', METHODS)
def test_the_step_in_thought_is_one_of_the_critics_that_learn_at_their_step_size(
  method,
):
  config = configure(method, time_limits_terminal=True)
  agent = make_agent(config, ENV)
  before = states(method)['learn']
  after, metrics = outer_stepped(method, time_limits_terminal=True)
  _, batch_key, outer_key, next_key, *_ = jax.random.split(before.key, 7)
  batch, _ = drawn(before, batch_key, config.sac.batch_size)
  values = agent.next_values(before.agent, batch, next_key)
  continuation = config.sac.discount * jnp.where(batch.truncated, 0.0, values)

  def trained(critic, learning_rate, env_steps=before.env_steps):
    meta = _meta(config, ENV, agent.q_values, learning_rate)
    step = jax.jit(meta.step, static_argnames='combine')
    _, model, seen = step(
      outer_key,
      before.feedback.outer,
      before.feedback.reward_model,
      critic,
      batch.obs,
      batch.action,
      continuation,
      before.feedback.answers.ratings,
      before.feedback.answers.pairs.asked,
      combine=lambda members: combine_of(config)(members, env_steps),
    )
    return model.params, seen['meta_gradient_norm']

  options, found = config.sac, after.feedback.reward_model.params
  critic, slow_copy = before.agent.critic, before.agent.target_critic
  rate = options.critic_learning_rate
  close = functools.partial(chex.assert_trees_all_close, atol=1e-6, rtol=1e-4)
  expected, norm = trained(critic, rate)
  close(found, expected)
  for other, _ in (trained(slow_copy, rate), trained(critic, 30 * rate)):
    with pytest.raises(AssertionError):
      close(found, other)
  # Adam's first step does not tell how large a gradient is, which curiosity changes.
  np.testing.assert_allclose(metrics['meta_gradient_norm'], norm, rtol=1e-3)
  if 'rune' in method:
    _, fresher = trained(critic, rate, before.env_steps - FIRST_SESSION)
    assert not np.isclose(fresher, norm, rtol=5e-3)


def test_outer_steps_are_taken_on_ratings_alone():
  algorithm = methods.make(configure('mrn/ratings'), ENV)
  state = jax.jit(algorithm.init)(jax.random.key(0))
  random = jax.jit(algorithm.chunks['random'])
  session = session_of(algorithm, algorithm.request(FIRST_SESSION))
  for stage in (random, random, jax.jit(session)):
    state, _ = stage(state)
  after, metrics = jax.jit(algorithm.events['outer_step'])(state)
  assert int(metrics['meta_labels']) == 24
  assert int(metrics['meta_non_finite']) == 0
  assert float(metrics['meta_gradient_norm']) > 0
  assert float(metrics['meta_reward_change']) > 1e-3
  held = int(after.replay.filled)
  gaps = after.replay.rewards[:held] - state.replay.rewards[:held]
  assert float(jnp.abs(gaps).max()) > 1e-3


def test_time_limits_end_the_return_in_outer_steps_where_asked():
  state = states('mrn')['learn']
  settings = [outer_step('mrn', time_limits_terminal=t) for t in (True, False)]
  stopped, passed = (step(state)[0] for step in settings)
  gaps = jax.tree.map(
    lambda x, y: float(jnp.max(jnp.abs(x - y))),
    stopped.agent.critic,
    passed.agent.critic,
  )
  assert max(jax.tree.leaves(gaps)) > 1e-4
  # The last column of a row says whether it was cut off; now none was.
  rows = state.replay.rows.at[:, -1].set(0.0)
  state = state.replace(replay=state.replay.replace(rows=rows))
  stopped, passed = (step(state)[0] for step in settings)
  chex.assert_trees_all_close(stopped.agent, passed.agent, atol=1e-6)


BONUS = OffPolicyIntervention(
  shape_rewards=lambda level, batch, recent: batch.obs[:, 0] + recent.obs[0, 0],
  regulariser=None,
  recent_rows=6,
  newest=4,
  gate=None,
  diagnose=None,
)


def push(recent):
  """Shrinks the actor, the more the larger the newest observations are."""
  weight = jnp.mean(recent.obs)
  return Regulariser(
    loss=lambda actor, key: (
      weight * sum(jnp.sum(x**2) for x in jax.tree.leaves(actor)),
      {},
    ),
    combine=lambda rl, term, *_: (jax.tree.map(jnp.add, rl, term), {}),
    refresh_every=1,
  )


PUSH = BONUS._replace(
  shape_rewards=None, regulariser=lambda level, recent: push(recent)
)


def outer_stepped_beside(intervention, terminal=False):
  """An outer step whose parts are made up; agent, states, and what was handed over.

  The reward is a level, which rises from 1 to 2, times the observation. The newest
  four observations are 5.
  """
  options = SACOptions(hidden_size=8, batch_size=16, actor_learning_rate=1e-2)
  agent = make_sac(options, 1, 1, regularised=True)

  def step(level, agent_state, batch, continuation, key):
    return level + 1.0, {'batch': batch, 'continuation': continuation}

  learner = OffPolicyLearner(
    agent=agent,
    batch_size=options.batch_size,
    fresh_labels=False,
    catch_up_updates=0,
    explore_steps=0,
    neighbours=5,
    feedback=SimpleNamespace(
      members=lambda level, obs, action: level * obs[None, ..., 0],
      combine=lambda members, env_steps: members[0],
    ),
    outer=OuterStep(step, terminal, None),
    intervention=intervention,
  )
  rows = jnp.linspace(-1.0, 1.0, 12)
  ends = jnp.arange(12)[:, None] % 3
  obs = rows.at[-4:].set(5.0)
  fields = (obs, rows, rows[::-1], ends == 1, ends == 2)
  replay = replay_lib.init_replay(12, (1, 1, 1, 1, 1), 1)
  before = OffPolicyState(
    agent=agent.init(jax.random.key(0)),
    replay=replay_lib.insert(replay, fields, rows[:, None]),
    env=None,
    clock=None,
    feedback=jnp.ones(()),
    novelty=None,
    key=jax.random.key(1),
    env_steps=jnp.int32(12),
    updates=jnp.int32(2),
  )
  after, metrics = jax.jit(learner.outer_step)(before)
  return agent, before, after, metrics


@pytest.mark.parametrize('intervention', [None, BONUS], ids=['plain', 'bonus'])
@pytest.mark.parametrize('terminal', [True, False])
def test_the_step_in_thought_has_the_targets_of_the_step_that_is_taken(
  terminal, intervention
):
  agent, before, after, seen = outer_stepped_beside(intervention, terminal)
  _, _, _, next_key, _, learn_key, _ = jax.random.split(before.key, 7)
  batch = seen['batch']
  values = np.asarray(agent.next_values(before.agent, batch, next_key))
  ended = np.asarray(batch.terminated | (batch.truncated & terminal))
  assert ended.any()
  assert np.asarray(batch.truncated & ~batch.terminated).any()
  bonus = 0.0 if intervention is None else batch.obs[:, 0] + 5.0
  expected = bonus + agent.discount * np.where(ended, 0.0, values)
  np.testing.assert_allclose(seen['continuation'], expected, rtol=1e-5)
  targets = 2.0 * batch.obs[:, 0] + expected
  learned, _ = agent.learn(before.agent, batch, targets, learn_key, before.updates)
  chex.assert_trees_all_close(after.agent.critic, learned.critic, rtol=1e-5)


def test_what_pushes_the_policy_does_so_in_outer_steps_too():
  agent, before, after, seen = outer_stepped_beside(PUSH)
  learn_key = jax.random.split(before.key, 7)[5]
  batch = seen['batch']
  targets = 2.0 * batch.obs[:, 0] + seen['continuation']
  recent = batch.replace(obs=jnp.full((6, 1), 5.0))
  with_push, without = (
    agent.learn(before.agent, batch, targets, learn_key, before.updates, term)[0]
    for term in (push(recent), None)
  )
  chex.assert_trees_all_close(after.agent, with_push, atol=1e-6)
  gap = with_push.actor[0].kernel - without.actor[0].kernel
  assert float(jnp.max(jnp.abs(gap))) > 1e-3


def test_without_its_gradient_an_outer_step_moves_the_reward_by_momentum_only():
  before = states('mrn')['learn'].feedback.reward_model.params
  after, own = outer_stepped('mrn', zero_gradient=True, optimiser='own_adam')
  assert float(own['meta_gradient_norm']) > 0
  assert float(own['meta_reward_change']) == 0
  chex.assert_trees_all_equal(after.feedback.reward_model.params, before)
  _, shared = outer_stepped('mrn', zero_gradient=True, optimiser='shared_adam')
  assert float(shared['meta_reward_change']) > 0


def test_pre_training_pays_for_the_distance_to_all_that_was_seen_so_far():
  """One update at a time, where half of the buffer's rows are still empty."""
  config = make_config(
    'pebble',
    run={'task': 'probe_reach', 'total_env_steps': 640, 'updates_per_step': 0.25},
    replay={'chunk_steps': 4},
  )
  env = envs.make('probe_reach')
  agent, algorithm = make_agent(config, env), methods.make(config, env)
  random, explore = (jax.jit(algorithm.chunks[name]) for name in ('random', 'explore'))
  state = jax.jit(algorithm.init)(jax.random.key(0))
  while algorithm.phase(int(state.env_steps)) == 'random':
    state, _ = random(state)
  distances, neighbours = np.zeros(0), config.pretrain.neighbours
  for filled in (84, 88):
    before = state
    state, metrics = explore(before)
    key, _ = jax.random.split(before.key)
    _, batch_key, _, update_key = jax.random.split(key, 4)
    batch, _ = drawn(state, batch_key, config.sac.batch_size)
    seen = np.asarray(state.replay.rows[:filled, 0], np.float64)
    # Empty rows would be points in the middle, among those that were seen.
    assert seen.min() < 0 < seen.max()
    gaps = np.abs(np.asarray(batch.obs, np.float64) - seen)
    nearest = np.sort(gaps, axis=1)[:, neighbours]  # The state itself comes first.
    distances = np.concatenate([distances, nearest])
    rewards = nearest / distances.std()
    np.testing.assert_allclose(metrics['agent_reward'], rewards.mean(), rtol=1e-4)
    learned, _ = jax.jit(functools.partial(update, agent))(
      before.agent, batch, jnp.float32(rewards), update_key, before.updates
    )
    chex.assert_trees_all_close(state.agent, learned, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize('method', METHODS)
def test_learning_begins_with_new_critics_and_a_burst_of_updates(method):
  config = configure(method)
  agent = make_agent(config, ENV)
  before, after = (states(method)[name] for name in ('session', 'begin_learning'))
  combine = combine_of(config)
  count = config.replay.catch_up_updates
  key, reset_key = jax.random.split(before.key)
  fresh = agent.reset_critic(reset_key, before.agent)

  @jax.jit
  def caught_up(learned, key):
    for i in range(count):
      key, batch_key, _, update_key = jax.random.split(key, 4)
      batch, said = drawn(before, batch_key, config.sac.batch_size)
      rewards = combine(said.T, before.env_steps)
      learned, _ = update(
        agent, learned, batch, rewards, update_key, before.updates + i
      )
    return learned

  expected = caught_up(fresh, key)
  chex.assert_trees_all_close(after.agent, expected, atol=1e-4, rtol=1e-3)
  # What was learned of novelty is far away, and so are critics not caught up.
  for other in (caught_up(before.agent, key), before.agent, fresh):
    with pytest.raises(AssertionError):
      chex.assert_trees_all_close(
        after.agent.critic, other.critic, atol=1e-4, rtol=1e-3
      )
  assert int(after.agent.critic_optimizer.count) == count
  explored = int(before.agent.actor_optimizer.count)
  assert int(after.agent.actor_optimizer.count) == explored + count
  assert explored > 0


@pytest.mark.parametrize('ratio', [0.25, 0.5])  # An update in an iteration, or two.
def test_an_outer_step_can_take_the_place_of_an_update(ratio):
  """The released code's: the first one after it is left out, and nothing else."""
  config = configure('mrn', ratio, replaces_update=True)
  algorithm = methods.make(config, ENV)
  interval, chunk = config.mrn.interval, config.replay.chunk_steps
  due = [t for t in range(0, 640, chunk) if 'outer_step' in algorithm.events_due(t)]
  assert due
  assert {algorithm.phase(t) for t in due} == {'learn_after_outer'}
  assert algorithm.phase(due[0] + chunk) == 'learn'
  assert interval > chunk
  assert {methods.make(configure('mrn'), ENV).phase(t) for t in due} == {'learn'}

  stepped, _ = outer_stepped('mrn')
  whole, wanted = jax.jit(algorithm.chunks['learn'])(stepped)
  after, metrics = jax.jit(algorithm.chunks['learn_after_outer'])(stepped)
  assert int(whole.updates - stepped.updates) == chunk * ratio
  assert int(after.updates - stepped.updates) == chunk * ratio - 1
  assert int(after.env_steps) == int(whole.env_steps)
  # Until something else was learned both do the same.
  held, num_envs = int(stepped.replay.filled), config.replay.num_envs
  got, plain = (s.replay.rows[held : held + chunk] for s in (after, whole))
  np.testing.assert_array_equal(got[:num_envs], plain[:num_envs])
  assert np.abs(got[num_envs:] - plain[num_envs:]).max() > 1e-6
  chex.assert_trees_all_equal_shapes_and_dtypes((after, metrics), (whole, wanted))
  chex.assert_tree_all_finite(metrics)


def test_updates_keep_their_ratio_to_environment_steps():
  seen = states('mrn')
  config = configure('mrn')
  steps, burst = config.replay.chunk_steps, config.replay.catch_up_updates
  updates = {name: int(state.updates) for name, state in seen.items()}
  assert updates == {
    'random': 0,
    'explore': steps * RATIO,
    'session': steps * RATIO,
    'begin_learning': steps * RATIO + burst,
    'learn': 2 * steps * RATIO + burst,
  }
  count = seen['learn'].agent.critic_optimizer.count
  assert int(count) == burst + steps * RATIO
