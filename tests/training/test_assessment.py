"""What an assessment measures, and that it plays no more than it has to."""

import jax
import numpy as np
import pytest

from rlfb_jax import envs, methods
from rlfb_jax.envs.probe import ProbeEnvironment
from rlfb_jax.training import evaluate
from rlfb_jax.training.assessment import make_assess, summary
from rlfb_jax.training.loop import evaluation_key, seed_keys
from rlfb_jax.training.program import compile_algorithm
from rlfb_jax.training.q_error import measure_q_error
from tests.methods.probe_runs import make_config
from tests.training.test_evaluate import CounterEnv


def _made(config):
  """A run at its start: its parts and the state of two seeds."""
  env = envs.make(config.run.task, config.run.engine, num_threads=1)
  algorithm = methods.make(config, env)
  functions = compile_algorithm(algorithm)
  return env, algorithm, functions, functions.init(seed_keys(0, 2))


@pytest.mark.parametrize('method', ['ppo', 'sac', 'ddpg'])
def test_episodes_are_played_once(method, monkeypatch):
  env, algorithm, functions, state = _made(make_config(method))
  reset, begun = ProbeEnvironment.reset, []

  def counted(self, key, num_envs):
    begun.append(num_envs)
    return reset(self, key, num_envs)

  monkeypatch.setattr(ProbeEnvironment, 'reset', counted)
  assess = make_assess(algorithm, functions, env, evaluation_key(), 3)
  episodes, error = assess(state)
  assert begun == [3]
  assert episodes.returns.shape == (2, 3)
  assert episodes.success is None
  assert (error is None) == (method == 'ppo')


@pytest.mark.parametrize('method', ['sac', 'ddpg'])
def test_episodes_that_critics_are_measured_on_have_the_returns_of_others(method):
  task = {'task': 'cartpole_balance', 'engine': 'native', 'total_env_steps': 8000}
  env, algorithm, functions, state = _made(make_config(method, run=task))
  key = evaluation_key()
  (returns, _), error = make_assess(algorithm, functions, env, key, 3)(state)
  alone = functions.read(
    lambda s: evaluate.evaluate(env, algorithm.act, algorithm.policy(s), key, 3)
  )
  np.testing.assert_array_equal(returns, alone(state).returns)
  assert len({*returns.ravel()}) == returns.size
  assert error.raw.shape == (2,)


def test_returns_of_episodes_that_end_early_are_the_same_too():
  env, key = CounterEnv(), jax.random.key(3)

  def act(params, obs):
    return params + 0.0 * obs

  found, _ = jax.jit(
    lambda p: measure_q_error(
      env, act, lambda c, obs, action: obs[..., 0], p, None, key, 40, 0.9
    )
  )(0.5)
  expected = jax.jit(lambda p: evaluate.evaluate(env, act, p, key, 40))(0.5)
  np.testing.assert_array_equal(found.returns, expected.returns)
  assert len({*np.asarray(found.returns)}) > 3


def test_success_is_a_metric_where_the_task_tells_it():
  returns = np.float32([[1, 2], [3, 5]])
  found = summary(evaluate.Episodes(returns, np.array([[1, 1], [0, 1]], bool)), None)
  np.testing.assert_array_equal(found['evaluation_success'], [1.0, 0.5])
  assert set(summary(evaluate.Episodes(returns), None)) == {'evaluation_return'}
