"""The off-policy skeleton: SAC or DDPG fed by the true reward or by what people said.

`sac`, `ddpg`, `pebble`, `surf`, `rune`, `mrn` and the rating methods on these agents
are this one loop with other parts passed in. Its timeline is PEBBLE's
(`train_PEBBLE.py`): random actions, state-entropy pre-training, first session, new
critics and a burst of updates, then updates at a fixed ratio to environment steps.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rlfb_jax.agents.off_policy import OffPolicyAgent
from rlfb_jax.core import replay as replay_lib
from rlfb_jax.core.batching import one_seed_at_a_time
from rlfb_jax.core.extrema import min_over_first
from rlfb_jax.core.types import Key, Metrics
from rlfb_jax.envs.base import Environment, EnvState
from rlfb_jax.methods.algorithm import (
  Algorithm,
  Critics,
  PerKind,
  PolicyNetwork,
  Session,
)
from rlfb_jax.methods.collect import (
  Experience,
  correlation,
  experience_of,
  init_clock,
  track_episodes,
  true_reward,
)
from rlfb_jax.methods.off_policy_learner import OffPolicyLearner
from rlfb_jax.methods.off_policy_options import ReplayOptions
from rlfb_jax.methods.off_policy_parts import (
  OffPolicyIntervention,
  OffPolicyState,
  OuterStep,
  replay_widths,
)
from rlfb_jax.methods.parts import Feedback, make_propose
from rlfb_jax.reward.novelty import init_novelty

RANDOM, EXPLORE, LEARN = 'random', 'explore', 'learn'
AFTER_OUTER = 'learn_after_outer'  # With an update less, whose place the step took.
BEGIN, OUTER = 'begin_learning', 'outer_step'
_DIAGNOSTIC_KEY = 20_250_104


def make_off_policy(
  env: Environment,
  agent: OffPolicyAgent,
  options: ReplayOptions,
  batch_size: int,
  updates_per_iteration: int,
  capacity: int,
  *,
  feedback: Feedback | None = None,
  neighbours: int = 5,
  outer: OuterStep | None = None,
  intervention: OffPolicyIntervention | None = None,
  teacher_reward: Callable[[EnvState], jax.Array] = true_reward,
) -> Algorithm:
  """Composes the parts.

  Args:
    env: where the agent acts.
    agent: who acts and learns.
    options: the loop's.
    batch_size: B, transitions in a gradient step.
    updates_per_iteration: gradient steps after each step of all environments.
    capacity: transitions that the buffer holds.
    feedback: without it the agent is paid the true reward.
    neighbours: which nearest neighbour measures novelty.
    outer: needs `feedback`.
    intervention: needs `feedback`.
    teacher_reward: what the scripted teacher sees, `EnvState -> [N]`.
  """
  num_envs, chunk_steps = options.num_envs, options.chunk_steps
  widths = replay_widths(env)
  # Until somebody has been asked the agent is paid for novelty.
  pretrain_steps = feedback.first_session if feedback else 0
  explores = pretrain_steps > options.random_steps
  learner = OffPolicyLearner(
    agent=agent,
    batch_size=batch_size,
    fresh_labels=options.fresh_labels,
    catch_up_updates=options.catch_up_updates,
    explore_steps=pretrain_steps,
    neighbours=neighbours,
    feedback=feedback,
    outer=outer,
    intervention=intervention,
  )

  def init(key: Key) -> OffPolicyState:
    agent_key, env_key, feedback_key, run_key = jax.random.split(key, 4)
    env_state = env.reset(env_key, num_envs)
    return OffPolicyState(
      agent=agent.init(agent_key),
      replay=replay_lib.init_replay(
        capacity, widths, feedback.num_members if feedback else 1
      ),
      env=env_state,
      clock=init_clock(env_state),
      feedback=feedback.init(feedback_key) if feedback else None,
      novelty=init_novelty() if explores else None,
      key=run_key,
      env_steps=jnp.zeros((), jnp.int32),
      updates=jnp.zeros((), jnp.int32),
    )

  def interact(
    state: OffPolicyState, phase: str
  ) -> tuple[OffPolicyState, tuple[Experience, jax.Array]]:
    key, act_key = jax.random.split(state.key)
    if phase == RANDOM:
      shape = (num_envs, env.action_size)
      action = jax.random.uniform(act_key, shape, minval=-1.0, maxval=1.0)
    else:
      action = agent.act(state.agent, state.env.obs, act_key)
    before, after = state.env, env.step(state.env, action)
    experience = experience_of(env, before, action, after, teacher_reward)
    if feedback is None:
      members = after.env_reward[:, None]
    else:
      members = learner.member_rewards(state, before.obs, action)
    fields = (before.obs, action, after.final_obs, after.terminated, after.truncated)
    state = state.replace(
      replay=replay_lib.insert(state.replay, fields, members),
      env=after,
      key=key,
      env_steps=state.env_steps + num_envs,
    )
    return state, (experience, members)

  def iterate(
    state: OffPolicyState, phase: str, updates: int = updates_per_iteration
  ) -> tuple[OffPolicyState, tuple[Experience, jax.Array, Metrics]]:
    state, (experience, members) = interact(state, phase)
    metrics: Metrics = {}
    if phase != RANDOM:
      state, metrics = jax.lax.scan(
        lambda s, _: learner.learn_once(s, phase == EXPLORE),
        state,
        None,
        length=updates,
      )
    return state, (experience, members, metrics)

  def iterate_all(
    state: OffPolicyState, phase: str
  ) -> tuple[OffPolicyState, tuple[Experience, jax.Array, Metrics]]:
    """A chunk's iterations: experience [T, ...], members [T, ...], metrics [U]."""
    iterations = chunk_steps // num_envs
    first = None
    if phase == AFTER_OUTER:
      state, first = iterate(state, LEARN, updates_per_iteration - 1)
      phase, iterations = LEARN, iterations - 1
    state, out = jax.lax.scan(
      lambda s, _: iterate(s, phase), state, None, length=iterations
    )
    experience, members, metrics = out
    metrics = {name: values.reshape(-1) for name, values in metrics.items()}
    if first is not None:
      experience, members = jax.tree.map(
        lambda a, b: jnp.concatenate([a[None], b]), first[:2], (experience, members)
      )
      metrics = {
        name: jnp.concatenate([first[2][name], values])
        for name, values in metrics.items()
      }
    return state, (experience, members, metrics)

  def make_chunk(phase: str) -> Callable[..., tuple[OffPolicyState, Metrics]]:
    learns = phase in (LEARN, AFTER_OUTER)

    def chunk(state: OffPolicyState) -> tuple[OffPolicyState, Metrics]:
      # The archive is only written at the end: kept out of the scan's carry.
      remembered = state.feedback
      if feedback is not None:
        state = state.replace(feedback=feedback.context(remembered))
      state, (experience, members, metrics) = iterate_all(state, phase)
      metrics = {name: jnp.mean(values) for name, values in metrics.items()}
      rewards = None
      if feedback is not None:
        if learns:
          members = jnp.moveaxis(members, -1, 0)
          if options.fresh_labels:
            members = feedback.members(
              state.feedback, experience.obs, experience.action
            )
          rewards = feedback.combine(members, state.env_steps)
          metrics['reward_correlation'] = correlation(rewards, experience.env_reward)
        state = state.replace(feedback=feedback.observe(remembered, experience))
      clock, episodes = track_episodes(state.clock, experience, rewards)
      if 'non_finite_updates' in metrics:
        metrics['non_finite_updates'] = state.agent.skipped_updates.astype(jnp.float32)
      metrics['updates'] = state.updates.astype(jnp.float32)
      return state.replace(clock=clock), metrics | episodes

    return one_seed_at_a_time(chunk)

  def make_session(feedback: Feedback) -> Session:
    def absorb(
      state: OffPolicyState, queries: Any, answers: Any, wanted: PerKind
    ) -> tuple[OffPolicyState, Metrics]:
      key, absorb_key = jax.random.split(state.key)
      learned, metrics = feedback.absorb(
        state.feedback, absorb_key, queries, answers, wanted
      )
      if intervention is not None and intervention.gate is not None:
        learned = intervention.gate(learned)
      return learner.relabel(state.replace(feedback=learned, key=key)), metrics

    return Session(
      propose=make_propose(feedback),
      teach=feedback.teach,
      absorb=one_seed_at_a_time(absorb),
    )

  def diagnose(state: OffPolicyState) -> tuple[OffPolicyState, Metrics]:
    assert feedback is not None
    quality = feedback.quality(state.feedback)
    if intervention is None:
      return state, quality
    # Looking at a run must not change it: no key of the run is used up.
    key = jax.random.fold_in(jax.random.key(_DIAGNOSTIC_KEY), state.env_steps)
    draw_key, noise_key = jax.random.split(key)
    seen, metrics = intervention.diagnose(
      state.feedback, state.agent, learner.recent(state, draw_key).obs, noise_key
    )
    return state.replace(feedback=seen), quality | metrics

  def phase(env_steps: int) -> str:
    if env_steps < options.random_steps:
      return RANDOM
    if env_steps < pretrain_steps:
      return EXPLORE
    after_outer = outer is not None and outer.replaces_update and outer.due(env_steps)
    return AFTER_OUTER if after_outer else LEARN

  def events_due(env_steps: int) -> tuple[str, ...]:
    begins = feedback is not None and env_steps == pretrain_steps
    goes_on = outer is not None and outer.due(env_steps)
    return (BEGIN,) * begins + (OUTER,) * goes_on

  def act(policy: Any, obs: jax.Array) -> jax.Array:
    return jnp.tanh(agent.policy(policy, obs)[0])

  def network(policy: Any) -> PolicyNetwork:
    layers = agent.mean_network(policy)
    shape = layers[0].kernel.shape[:-1]
    # Raw observations go in: nothing is shifted, scaled or cut.
    unlimited = float(jnp.finfo(jnp.float32).max)
    return PolicyNetwork(layers, jnp.zeros(shape), jnp.ones(shape), unlimited, 'relu')

  phases = [RANDOM] * (options.random_steps > 0) + [EXPLORE] * explores + [LEARN]
  phases += [AFTER_OUTER] * (outer is not None and outer.replaces_update)
  events = {BEGIN: one_seed_at_a_time(learner.begin_learning)} if feedback else {}
  if outer is not None:
    events[OUTER] = one_seed_at_a_time(learner.outer_step)
  return Algorithm(
    init=init,
    chunks={name: make_chunk(name) for name in phases},
    phase=phase,
    request=feedback.request if feedback else lambda env_steps: None,
    steps_per_chunk=chunk_steps,
    session=make_session(feedback) if feedback else None,
    diagnose=diagnose if feedback is not None else None,
    policy=lambda state: agent.actor_params(state.agent),
    act=act,
    network=network,
    critics=Critics(
      params=lambda state: agent.critic_params(state.agent),
      q_values=lambda params, obs, action: min_over_first(
        agent.q_values(params, obs, action)
      ),
      discount=agent.discount,
    ),
    events=events,
    events_due=events_due,
  )
