"""Runs that are left anywhere and taken up again end with the same bits."""

import functools
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from rlfb_jax import envs, methods
from rlfb_jax.training import signals, stages
from rlfb_jax.training.checkpoint import Checkpoints
from rlfb_jax.training.loop import seed_keys, train
from rlfb_jax.training.program import compile_algorithm
from tests.methods.probe_runs import make_config

# Long enough for every phase, three sessions and an outer step.
SHORT = {'run': {'total_env_steps': 640}}
CARTPOLE = {
  'run': {'task': 'cartpole_balance', 'total_env_steps': 192, 'num_threads': 1},
  'sac': {'hidden_size': 4, 'batch_size': 8},
  'replay': {'num_envs': 4, 'random_steps': 0, 'chunk_steps': 32},
  # Not whole parts of an episode: a rollout a chunk.
  'ppo': {'num_envs': 4, 'rollout_steps': 16, 'minibatch_size': 32, 'hidden_size': 4},
  'feedback': {
    'label_budget': 16,
    'labels_per_session': 8,
    'session_interval': 64,
    'pretrain_steps': 64,
    'at_episode_end': False,
    'segment_steps': 4,
  },
  'rating': {'num_classes': 3, 'max_return': 4.0},
}
CLOCKS = {'wall_seconds', 'steps_per_second'}


def raw(x):
  typed = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
  return np.asarray(jax.random.key_data(x) if typed else x)


def assert_same_bits(a, b):
  flat, structure = jax.tree_util.tree_flatten_with_path(a)
  assert structure == jax.tree.structure(b)
  for (path, x), y in zip(flat, jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype, path
    assert raw(x).tobytes() == raw(y).tobytes(), path


def assert_same_lines(a, b):
  assert [(step, set(m)) for step, m in a] == [(step, set(m)) for step, m in b]
  for (step, m), (_, n) in zip(a, b, strict=True):
    for name in set(m) - CLOCKS:
      x, y = np.asarray(m[name]), np.asarray(n[name])
      assert (x.dtype, x.tobytes()) == (y.dtype, y.tobytes()), (step, name)


class Lived:
  """A run with a checkpoint after every stage, which can be taken up at each."""

  def __init__(self, config, folder, **kwargs):
    self.env = envs.make(
      config.run.task, config.run.engine, num_threads=config.run.num_threads
    )
    self.algorithm = methods.make(config, self.env)
    self.functions = compile_algorithm(self.algorithm)
    self.rows = seed_keys(0, 2)
    self.total = config.run.total_env_steps
    self.kwargs = kwargs
    self.folder = folder
    self.lines = []
    saves = Checkpoints(folder / 'all', minutes=0.0, kept=1000)
    self.trained = self.train(self.lines, saves, None)
    self.steps = saves.steps()

  def train(self, lines, saves, restored):
    return train(
      self.algorithm,
      self.env,
      rows=self.rows,
      total_env_steps=self.total,
      listeners=(lambda step, metrics: lines.append((step, dict(metrics))),),
      functions=self.functions,
      checkpoints=saves,
      restored=restored,
      **self.kwargs,
    )

  def like(self):
    return jax.eval_shape(jax.vmap(self.algorithm.init), self.rows)

  def resume(self, step):
    """Takes the run up where only this checkpoint is known, and compares."""
    folder = self.folder / str(step)
    shutil.copytree(self.folder / 'all' / str(step), folder / str(step))
    saves = Checkpoints(folder, minutes=None)
    restored = saves.restore(self.like())
    start = restored.clock.env_steps
    lines = [line for line in self.lines if line[0] <= start]
    trained = self.train(lines, saves, restored)
    assert_same_bits(trained.state, self.trained.state)
    assert_same_lines(lines, self.lines)
    if trained.evaluation is not None:
      np.testing.assert_array_equal(
        trained.evaluation.returns, self.trained.evaluation.returns
      )
    assert trained.seconds > 0


def positions(algorithm, total):
  """The stages that an iteration has done, at each place where a run can be left."""
  env_steps, found = 0, []
  while env_steps < total:
    done = stages.stages_at(algorithm, env_steps)
    found += [(env_steps, tuple(map(str, done[:i]))) for i in range(len(done))]
    env_steps += algorithm.steps_of(algorithm.phase(env_steps))
  return found[1:]


def telling(algorithm, total):
  """One position of each kind: the latest, which is the cheapest to go on from."""
  kinds = {}
  for env_steps, done in positions(algorithm, total):
    kinds[tuple(s.partition(':')[0] for s in done)] = env_steps + len(done)
  return sorted(kinds.values())


@pytest.fixture(scope='module')
def ppo(tmp_path_factory):
  """Evaluated on the way, which changes no bit of the training."""
  folder = tmp_path_factory.mktemp('ppo')
  config = make_config('ppo', **SHORT)
  return Lived(config, folder, eval_episodes=2, eval_interval=320)


slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
  'method',
  [
    'rbrl_kl',
    'pebble',
    'mrn+kl/both',
    slow('sac'),
    slow('ddpg'),
    slow('rbrl'),
    slow('pref_ppo'),
    slow('surf'),
    slow('rune'),
    slow('mrn'),
  ],
)
def test_a_resumed_run_has_the_same_bits(method, tmp_path):
  lived = Lived(make_config(method, **SHORT), tmp_path)
  steps = telling(lived.algorithm, lived.total)
  assert set(steps) < set(lived.steps)
  for step in steps:
    lived.resume(step)


def test_positions_lie_after_sessions_and_before_events():
  config = make_config('mrn+kl/both', **SHORT)
  algorithm = methods.make(config, envs.make('probe_choice'))
  assert (160, ('session', 'event:begin_learning')) in positions(algorithm, 640)
  kinds = {done for _, done in positions(algorithm, 640)}
  assert ('session',) in kinds
  assert any(done[-1:] == ('chunk:learn',) for done in kinds)


@pytest.mark.parametrize(
  ('engine', 'method'),
  [('native', 'sac'), ('native', 'rbrl_kl'), ('mjx', 'sac'), slow('mjx', 'rbrl_kl')],
)
def test_a_resumed_run_has_the_same_bits_on_both_engines(engine, method, tmp_path):
  changes = {**CARTPOLE, 'run': {**CARTPOLE['run'], 'engine': engine}}
  lived = Lived(make_config(method, **changes), tmp_path)
  asked = [t for t in range(192) if lived.algorithm.request(t) is not None]
  assert asked == ([64, 128] if method == 'rbrl_kl' else [])
  for step in telling(lived.algorithm, lived.total):
    lived.resume(step)


def test_evaluations_and_what_comes_after_the_end_are_the_same(ppo):
  assert sum('evaluation_return' in metrics for _, metrics in ppo.lines) == 2
  for step in {160, 320, 640, *telling(ppo.algorithm, ppo.total)}:
    ppo.resume(step)
  saves = Checkpoints(ppo.folder / 'all', minutes=None)
  assert saves.restore(ppo.like()).clock.score is not None


def test_saving_changes_nothing(ppo):
  lines = []
  trained = ppo.train(lines, None, None)
  assert_same_bits(trained.state, ppo.trained.state)
  assert_same_lines(lines, ppo.lines)


def test_a_signal_that_comes_with_the_last_save_is_not_swallowed(ppo, tmp_path):
  class Late(Checkpoints):
    def save(self, state, clock):
      super().save(state, clock)
      if clock.env_steps == 640 and not clock.done:
        os.kill(os.getpid(), signal.SIGTERM)

  late = Late(tmp_path / 'late', minutes=None)
  with pytest.raises(signals.Stopped) as stopped:
    ppo.train([], late, None)
  assert (stopped.value.number, stopped.value.env_steps) == (signal.SIGTERM, 640)
