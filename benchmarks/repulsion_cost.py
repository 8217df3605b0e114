"""What the repulsion costs, and how long one of its gradients stays good.

  python benchmarks/repulsion_cost.py           # about 5 minutes
  python benchmarks/repulsion_cost.py --quick   # sizes for tests, numbers worthless

RbRL-KL evaluates the gradient of its term on a batch of states and applies it in the
minibatches that follow. A run is trained through its first labelling sessions, and
after each of them measured, along the update that PPO would make there:
  - staleness: the cosine between the term's gradients before and after each group of
    minibatches that shares one, on the same states and with the same noise.
  - sampling: the cosine between its gradients on two independent batches of states at
    the same parameters.
And of the last update, in turns: how long one evaluation of the term's gradient takes,
and the gradient of one of PPO's minibatches.

Raw samples go to `--out` as they come, by default to `benchmarks/results`, with --quick
to `runs/benchmarks`; tables beside it. For the times nothing else should run meanwhile.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import command_line
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from measure import Compilations, Summary, ratio_of_rounds, summarize, warn_of_load
from report import circumstances, table
from taking_turns import Piece, take_turns
from workloads import TINY_FLAGS, TINY_SIZES

from rlfb_jax import envs, methods
from rlfb_jax.agents import ppo
from rlfb_jax.agents.ppo.update import Batch, minibatch_loss
from rlfb_jax.agents.regulariser import Regulariser
from rlfb_jax.bin import launch
from rlfb_jax.core.types import Key, Params
from rlfb_jax.methods.collect import Experience, collect, true_reward
from rlfb_jax.methods.intervene import make_intervention, repulsion_policy
from rlfb_jax.methods.on_policy import rollout_of
from rlfb_jax.repulsion import make_repulsion
from rlfb_jax.reward.model import make_reward_model
from rlfb_jax.training import loop, manifest, program
from rlfb_jax.training.stages import SESSION, run_stage, stages_at

TERM, MINIBATCH = "the term's gradient", 'minibatch gradient'
# What a good agent of this length earns, so that clips are of several classes.
FLAGS = ('--method=rbrl_kl', '--rating_max_return=20')
QUICK_FLAGS = (
  *(f'--ppo_{name}={value}' for name, value in TINY_SIZES.items()),
  *TINY_FLAGS,
  '--ppo_num_epochs=3',
  '--kl_min_segments=2',
)
SESSIONS, QUICK_SESSIONS = 3, 2
SECONDS, QUICK_SECONDS = 60.0, 0.1


class Measured(NamedTuple):
  """The parts of a method that are measured, of one seed.

  Attributes:
    options: PPO's.
    collect: `(state, key) -> experience`, a rollout from where a run is.
    reward: `(state, experience) -> [T, N]`, what the agent is paid for it.
    regulariser: `(state, experience) -> Regulariser`, PPO's in that update.
  """

  options: ppo.PPOOptions
  collect: Callable[[Any, Key], Experience]
  reward: Callable[[Any, Experience], jax.Array]
  regulariser: Callable[[Any, Experience], Regulariser]


def parts_of(config: methods.Config, env: Any) -> Measured:
  """What `methods.make` composes of this configuration, piece by piece."""
  options, sizes = config.ppo, (env.observation_size, env.action_size)
  policy = repulsion_policy(options)
  repulsion = make_repulsion(config.kl, policy, config.rating.num_classes, *sizes)
  model = make_reward_model(config.reward, *sizes)

  def r_hat(feedback: Any, obs: jax.Array, action: jax.Array) -> jax.Array:
    return model.r_hat(feedback.reward_model, obs, action)

  intervention = make_intervention(
    repulsion,
    policy,
    config.kl,
    r_hat,
    env.action_size,
    options.rollout_steps,
    config.feedback.segment_steps,
  )

  def experience(state: Any, key: Key) -> Experience:
    def actor(obs: jax.Array, key: Key) -> tuple[jax.Array, jax.Array]:
      return ppo.act(state.agent, obs, key, options)

    steps = options.rollout_steps, true_reward, options.noise_steps
    return collect(env, actor, state.env, key, *steps)[1]

  def regulariser(state: Any, experience: Experience) -> Regulariser:
    assert intervention.regulariser is not None
    return intervention.regulariser(state.feedback, state.agent, experience)

  return Measured(
    options,
    experience,
    lambda state, steps: r_hat(state.feedback, steps.obs, steps.action),
    regulariser,
  )


def after_sessions(
  config: methods.Config, env: Any, count: int
) -> Iterator[tuple[int, Any]]:
  """Trains a seed; `(env_steps, its state)` after each of the first sessions."""
  algorithm = methods.make(config, env)
  functions = program.compile_algorithm(algorithm)
  state, env_steps = functions.init(loop.seed_keys(config.run.seed, 1)), 0
  while count:
    for stage in stages_at(algorithm, env_steps):
      state, _ = run_stage(algorithm, functions, stage, env_steps, state)
      if stage.kind == SESSION:
        yield env_steps, jax.tree.map(lambda x: x[0], state)
        count -= 1
        if not count:
          return
    env_steps += algorithm.steps_of(algorithm.phase(env_steps))


class Gradients(NamedTuple):
  """Of the term, at each of its evaluations in an update, leaves [P].

  Attributes:
    held: on the same states and with the same noise each time.
    first: on states of its own, and
    second: on others, at the same parameters.
  """

  held: np.ndarray
  first: np.ndarray
  second: np.ndarray


def watched(regulariser: Regulariser, keep: Callable[[Gradients], None]) -> Regulariser:
  """The same, but each evaluation tells `keep` of gradients on other batches."""

  def loss(actor: Params, key: Key) -> tuple[jax.Array, Any]:
    here = jax.lax.stop_gradient(actor)
    keys = jax.random.key(0), *jax.random.split(key)
    grads = (jax.grad(regulariser.loss, has_aux=True)(here, k)[0] for k in keys)
    flat = Gradients(*(ravel_pytree(g)[0] for g in grads))
    jax.debug.callback(keep, flat, ordered=True)
    return regulariser.loss(actor, key)

  return regulariser._replace(loss=loss)


def make_gradients(parts: Measured) -> Callable[[Any], Gradients]:
  """`state -> gradients` along the update of PPO from there, [evaluations, P]."""
  kept: list[Gradients] = []

  def keep(told: Gradients) -> None:
    kept.append(jax.tree.map(np.array, told))

  @jax.jit
  def update(state: Any) -> Any:
    steps = parts.collect(state, jax.random.key(1))
    return ppo.update(
      state.agent,
      rollout_of(steps),
      parts.reward(state, steps),
      jax.random.key(2),
      jnp.zeros(()),
      parts.options,
      regulariser=watched(parts.regulariser(state, steps), keep),
    )[0]

  def gradients(state: Any) -> Gradients:
    kept.clear()
    jax.block_until_ready(update(state))
    jax.effects_barrier()
    return jax.tree.map(lambda *rows: np.stack(rows), *kept)

  return gradients


def cosines(a: np.ndarray, b: np.ndarray) -> list[float]:
  """Of rows, [n, P] each.

  Raises:
    RuntimeError: if one is zero, because no class pushes.
  """
  sizes = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
  if not sizes.all():
    raise RuntimeError('no class pushes here; its gradient has no direction.')
  return (np.einsum('np,np->n', a, b, dtype=np.float64) / sizes).tolist()


def pieces(parts: Measured, state: Any, batch_size: int) -> list[Piece]:
  """An evaluation of the term's gradient, and a minibatch gradient beside it."""
  steps = jax.jit(parts.collect)(state, jax.random.key(0))
  params = state.agent.params

  @jax.jit
  def term(actor: Params, state: Any, steps: Experience, count: jax.Array) -> Params:
    loss = parts.regulariser(state, steps).loss

    def once(i: jax.Array, actor: Params) -> Params:
      key = jax.random.fold_in(jax.random.key(2), i)
      return _a_step(actor, jax.grad(loss, has_aux=True)(actor, key)[0])

    return jax.lax.fori_loop(0, count, once, actor)

  rows = steps.obs.shape[0] * steps.obs.shape[1]
  flat = rollout_of(steps)
  obs, raw_action, log_prob = (
    x.reshape(rows, *x.shape[2:]) for x in (flat.obs, flat.pre_tanh, flat.log_prob)
  )
  # What is in the last two matters to no clock.
  whole = Batch(obs, raw_action, log_prob, log_prob, log_prob, None)

  @jax.jit
  def minibatches(params: ppo.PPOParams, whole: Batch, count: jax.Array) -> Any:
    def once(i: jax.Array, params: ppo.PPOParams) -> Any:
      start = i % (rows // batch_size) * batch_size
      batch = jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, start, batch_size), whole
      )
      loss = jax.grad(minibatch_loss, has_aux=True)
      clip_range = parts.options.clip_range
      return _a_step(params, loss(params, batch, clip_range, parts.options)[0])

    return jax.lax.fori_loop(0, count, once, params)

  return [
    Piece(
      TERM,
      lambda n: jax.block_until_ready(term(params.actor, state, steps, jnp.int32(n))),
    ),
    Piece(
      MINIBATCH,
      lambda n: jax.block_until_ready(minibatches(params, whole, jnp.int32(n))),
    ),
  ]


def _a_step(params: Any, grads: Any) -> Any:
  """So small that nothing changes, and no product may be left out."""
  return jax.tree.map(lambda p, g: p - 1e-12 * g, params, grads)


def markdown(results: dict[str, Any]) -> str:
  """All tables that the samples give."""
  seconds, points = results['seconds'], results['points']
  cost = ratio_of_rounds(seconds[TERM], seconds[MINIBATCH])
  assert cost is not None
  shared = results['minibatches_of_one']
  added = Summary(*(100 * value / shared for value in cost))
  rows = [
    [
      f'{point["env_steps"]:,}',
      ', '.join(f'{count}' for count in point['class_counts']),
      *(summarize(point[name]).text(3) for name in ('staleness', 'sampling')),
    ]
    for point in points
  ]
  every = [
    summarize([c for point in points for c in point[name]]).text(3)
    for name in ('staleness', 'sampling')
  ]
  head = ('measured at env step', 'labels by class', f'{shared} minibatches apart')
  return (
    '\n\n'.join(
      [
        *circumstances('Repulsion: cost and age', results),
        f'`{" ".join(results["flags"])}`, one seed. Medians [smallest-largest].',
        f'One evaluation of the gradient of the term on {results["kl_batch"]:,} states'
        f' takes {cost.text(2)} times as long as the gradient of a minibatch of'
        f' {results["minibatch_size"]} transitions, of actor and critic together'
        f' ({len(seconds[TERM])} rounds in turns). Shared by {shared} minibatches it'
        f' adds {added.text(1)} % to their gradients.',
        'Cosines between two gradients of the term along one update of PPO after each'
        ' of the first sessions: on the same states and noise, before and after the'
        ' minibatches that share one; and at the same parameters, on two independent'
        ' batches of states.',
        table((*head, 'two batches'), [*rows, ['all', '', *every]]),
      ]
    )
    + '\n'
  )


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """The command line; ends with a sentence where it is wrong."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
  command_line.add_out(parser, 'repulsion_cost')
  parser.add_argument('--task', default='walker_walk', choices=envs.task_names())
  parser.add_argument('--quick', action='store_true', help='sizes for tests: worthless')
  options = parser.parse_args(argv)
  whole = not options.quick and options.task == parser.get_default('task')
  options.out = command_line.out_path(options.out, 'repulsion_cost', whole)
  return options


def main(argv: Sequence[str]) -> None:
  """Measures, and writes what was found."""
  options = parse(argv)
  start = time.monotonic()
  flags = [*FLAGS, f'--task={options.task}', *(QUICK_FLAGS if options.quick else ())]
  config = launch.parse(flags)
  # Chunks are made of whole episodes.
  length = config.ppo.rollout_steps if options.quick else None
  env = envs.make(options.task, engine='native', episode_length=length)
  parts = parts_of(config, env)
  gradients = make_gradients(parts)
  results: dict[str, Any] = {
    **manifest.make(['python', 'benchmarks/repulsion_cost.py', *argv]),
    'load_average': warn_of_load(),
    'flags': flags,
    'kl_batch': config.kl.kl_batch,
    'minibatch_size': config.ppo.minibatch_size,
    'points': [],
  }
  compilations = Compilations()

  def write() -> None:
    results['minutes'] = round((time.monotonic() - start) / 60, 1)
    options.out.write_text(json.dumps(results, indent=1) + '\n')

  sessions = QUICK_SESSIONS if options.quick else SESSIONS
  for env_steps, state in after_sessions(config, env, sessions):
    found = gradients(state)
    steps = config.ppo.num_epochs * config.ppo.minibatches_per_epoch
    results['minibatches_of_one'] = steps // len(found.held)
    ratings = state.feedback.answers.ratings
    given = np.asarray(ratings.rating[: int(ratings.count)])
    classes = config.rating.num_classes
    results['points'].append(
      {
        'env_steps': env_steps,
        'class_counts': np.bincount(given, minlength=classes).tolist(),
        'staleness': cosines(found.held[:-1], found.held[1:]),
        'sampling': cosines(found.first, found.second),
      }
    )
    write()
    last = state
  samples = take_turns(
    pieces(parts, last, config.ppo.minibatch_size),
    QUICK_SECONDS if options.quick else SECONDS,
    compilations,
  )
  results |= samples._asdict()
  write()
  text = markdown(results)
  options.out.with_suffix('.md').write_text(text)
  print(text)


if __name__ == '__main__':
  main(sys.argv[1:])
