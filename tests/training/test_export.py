"""The exported policy: NumPy alone, the same actions, nothing that fits by accident."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.core import networks, normalization
from rlfb_jax.methods.algorithm import PolicyNetwork
from rlfb_jax.training import export

SEEDS, DS, DA = 3, 5, 2


@pytest.fixture(scope='module')
def trained():
  """Networks and statistics of three seeds, as training leaves them."""

  rng = np.random.default_rng(1)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=(SEEDS, *shape)), jnp.float32)

  sizes = [DS, 8, 7, DA]
  mlp = tuple(
    networks.Layer(normal(n, m) / n, 0.1 * normal(m))
    for n, m in itertools.pairwise(sizes)
  )
  stats = normalization.RunningStatistics(
    count=jnp.full(SEEDS, 50.0), mean=2 + normal(DS), m2=500 * normal(DS) ** 2
  )
  return mlp, stats


def _network(mlp, stats, activation='tanh'):
  scale = jax.vmap(lambda s: s.std + normalization.NORMALIZE_EPSILON)(stats)
  return PolicyNetwork(mlp, stats.mean, scale, 2.0, activation)


@pytest.fixture(scope='module')
def policy(trained):
  return export.from_network('walker_walk', _network(*trained))


@pytest.fixture(scope='module')
def observations():
  return np.random.default_rng(0).normal(2, 8, (20, DS)).astype(np.float32)


def _reference(trained, seed, obs):
  """What the agent itself does (core.networks and core.normalization)."""
  mlp, stats = jax.tree.map(lambda x: x[seed], trained)
  inputs = normalization.normalize(stats, obs, 2.0)
  assert (jnp.abs(inputs) == 2.0).any()  # The clip is at work.
  return jnp.tanh(networks.apply_mlp(mlp, inputs, jnp.tanh))


def test_a_reloaded_policy_acts_as_the_agent(tmp_path, trained, policy, observations):
  export.save(tmp_path / 'policy', policy)
  for path in (tmp_path, tmp_path / 'policy'):  # The run's folder does as well.
    loaded = export.load_policy(path)
    assert (loaded.task, loaded.num_seeds) == ('walker_walk', SEEDS)
    assert (loaded.observation_size, loaded.action_size) == (DS, DA)
    for seed in range(SEEDS):
      expected = _reference(trained, seed, observations)
      action = loaded.act(observations, seed)
      assert isinstance(action, np.ndarray)
      assert action.dtype == np.float32
      np.testing.assert_allclose(action, expected, atol=2e-6)
      np.testing.assert_array_equal(loaded.seed(seed).act(observations), action)
  with np.load(tmp_path / 'policy' / 'policy.npz') as arrays:
    assert arrays['kernel_2'].shape == (SEEDS, 7, DA)


def test_it_runs_in_jax_under_jit_and_vmap(trained, policy, observations):
  params = policy.params()
  actions = jax.jit(jax.vmap(policy.apply, (0, None)))(params, jnp.array(observations))
  expected = np.stack([policy.act(observations, s) for s in range(SEEDS)])
  np.testing.assert_allclose(actions, expected, atol=2e-6)
  assert isinstance(policy.act(jnp.array(observations)), jax.Array)


def test_one_observation_and_float64_are_fine(policy, observations):
  one = policy.act(observations[0].astype(np.float64))
  assert one.shape == (DA,)
  assert one.dtype == np.float32
  np.testing.assert_allclose(one, policy.act(observations)[0], atol=1e-6)


def test_what_does_not_fit_is_refused(tmp_path, trained, policy):
  with pytest.raises(ValueError, match='last axis must be 5'):
    policy.act(np.zeros((2, DS + 1)))
  for seed in (-1, SEEDS):
    with pytest.raises(ValueError, match=f'seed={seed} is not .* has 0 to 2'):
      policy.act(np.zeros(DS), seed)
  mlp, stats = trained
  with pytest.raises(ValueError, match='make no policy'):
    export.from_network('t', _network(mlp, jax.tree.map(lambda x: x[:1], stats)))
  with pytest.raises(ValueError, match='activation=gelu'):
    export.from_network('t', _network(mlp, stats, 'gelu'))
  with pytest.raises(ValueError, match='holds no policy'):
    export.load_policy(tmp_path)


def test_a_newer_format_is_refused(tmp_path, policy):
  export.save(tmp_path, policy)
  info = json.loads((tmp_path / 'policy.json').read_text())
  info['format_version'] += 1
  (tmp_path / 'policy.json').write_text(json.dumps(info))
  with pytest.raises(ValueError, match='use a newer rlfb_jax'):
    export.load_policy(tmp_path)


def test_a_policy_is_shown_in_one_line(policy):
  assert repr(policy) == "Policy(task='walker_walk', clip=2.0, activation='tanh')"
