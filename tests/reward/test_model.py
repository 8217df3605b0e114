import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rating_reference as reference

from rlfb_jax.reward import model as models
from rlfb_jax.reward.model import aggregate, make_reward_model
from rlfb_jax.reward.network import apply_member, init_member, predict_member
from rlfb_jax.reward.options import RewardOptions
from rlfb_jax.reward.sources import segment_rewards
from rlfb_jax.reward.whitening import Labelled, standardisation

DS, DA = 5, 2
OPTIONS = RewardOptions(hidden_size=16, hidden_layers=2)
KEY = jax.random.key(0)


def as_float64(params):
  return [(np.asarray(p.kernel, float), np.asarray(p.bias, float)) for p in params]


@pytest.mark.parametrize('apply', [apply_member, predict_member])
@pytest.mark.parametrize('head', ['tanh', 'sigmoid', 'relu'])
def test_network_matches_float64_forward_and_backward(head, apply):
  params = init_member(KEY, [DS + DA, 16, 16, 1])
  x = jax.random.normal(jax.random.key(1), (40, DS + DA))
  weights = jax.random.normal(jax.random.key(2), (40,))
  layers = as_float64(params)
  hidden, out = reference.forward(layers, np.asarray(x, float), head)
  assert np.sum(out > 0) > 5
  np.testing.assert_allclose(apply(params, x, head), out, atol=1e-6)
  want = reference.backward(layers, hidden, out, np.asarray(weights, float), head)
  got = jax.grad(lambda p: jnp.sum(weights * apply(p, x, head)))(params)
  for layer, (kernel, bias) in zip(got, want, strict=True):
    np.testing.assert_allclose(layer.kernel, kernel, atol=2e-5)
    np.testing.assert_allclose(layer.bias, bias, atol=2e-5)


def test_initialisation_is_pytorchs():
  layers = init_member(KEY, [100, 400, 1])
  for layer, fan_in in zip(layers, (100, 400), strict=True):
    bound = fan_in**-0.5
    values = np.asarray(layer.kernel).ravel()
    assert np.abs(values).max() <= bound
    # Uniform: std is bound / sqrt(3).
    np.testing.assert_allclose(values.std(), bound / 3**0.5, rtol=0.1)
  biases = np.asarray(layers[0].bias)
  assert np.abs(biases).max() <= 0.1
  np.testing.assert_allclose(biases.std(), 0.1 / 3**0.5, rtol=0.15)


def test_r_hat_is_the_mean_of_tanh_outputs_of_independent_members():
  model = make_reward_model(OPTIONS, DS, DA)
  state = model.init(KEY)
  obs = jax.random.normal(jax.random.key(1), (3, 4, DS))
  action = jax.random.uniform(jax.random.key(2), (3, 4, DA), minval=-1)
  members = model.r_hat_members(state, obs, action)
  assert members.shape == (3, 3, 4)
  x = np.concatenate([obs, action], axis=-1).reshape(12, -1).astype(float)
  for k in range(3):
    layers = as_float64(jax.tree.map(lambda p, k=k: p[k], state.params))
    want = reference.forward(layers, np.clip(x, -10, 10))[1].reshape(3, 4)
    np.testing.assert_allclose(members[k], want, atol=1e-5)
  assert np.abs(np.asarray(members[0] - members[1])).max() > 1e-3
  r_hat = model.r_hat(state, obs, action)
  np.testing.assert_allclose(r_hat, members.mean(axis=0), atol=1e-6)


def test_the_head_is_that_of_the_options():
  """In what predicts, in what is trained, and in what standardises."""
  obs = jax.random.normal(jax.random.key(1), (30, DS))
  action = jax.random.uniform(jax.random.key(2), (30, DA), minval=-1)
  x = np.concatenate([obs, action], axis=-1).astype(float)
  for head in ('sigmoid', 'relu'):
    options = RewardOptions(**{**vars(OPTIONS), 'head': head})
    model = make_reward_model(options, DS, DA)
    state = model.init(jax.random.key(1))  # Of the first key a member is 0 everywhere.
    first = jax.tree.map(lambda p: p[0], state.params)
    want = reference.forward(as_float64(first), np.clip(x, -10, 10), head)[1]
    assert want.min() >= 0
    assert want.max() > 0
    got = model.outputs(state, obs, action)[0]
    np.testing.assert_allclose(got, want, atol=1e-6)
    inputs = options, first, state.obs_mean, state.obs_std, obs, action
    np.testing.assert_allclose(segment_rewards(*inputs), want, atol=1e-6)
    part = Labelled(obs[None], action[None], jnp.ones(1, bool))
    mean, std = standardisation(options, state.params, [part], *inputs[2:4])
    np.testing.assert_allclose(mean[0], want.mean(), atol=1e-6)
    np.testing.assert_allclose(std[0], want.std(), atol=1e-6)


def test_observations_are_whitened_and_actions_are_not():
  model = make_reward_model(OPTIONS, DS, DA)
  raw = make_reward_model(RewardOptions(**{**vars(OPTIONS), 'whiten': False}), DS, DA)
  state = model.init(KEY)
  mean, std = jnp.arange(5.0), jnp.array([1.0, 2.0, 0.5, 0.0, 3.0])
  white = jnp.tile(jnp.array([0.5, -1.0, 2.0, 0.0, 20.0]), (2, 1))
  action = jnp.array([[0.2, -0.7], [1.0, 0.0]])
  want = raw.r_hat(state, jnp.minimum(white, 10.0), action)
  state = state.replace(obs_mean=mean, obs_std=std)
  got = model.r_hat(state, white * std + mean, action)
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_chunks_change_nothing(monkeypatch):
  model = make_reward_model(OPTIONS, DS, DA)
  state = model.init(KEY)
  obs = jax.random.normal(jax.random.key(1), (23, DS))
  action = jnp.zeros((23, DA))
  whole = model.r_hat_members(state, obs, action)
  monkeypatch.setattr(models, 'CHUNK_ROWS', 7)
  chunked = model.r_hat_members(state, obs, action)
  assert chunked.shape == (3, 23)
  np.testing.assert_allclose(chunked, whole, atol=1e-6)


def test_shift_and_scale():
  model = make_reward_model(OPTIONS, DS, DA)
  state = model.init(KEY)
  obs, action = jnp.ones((1, DS)), jnp.zeros((1, DA))
  plain = model.r_hat_members(state, obs, action)[:, 0]
  shift, scale = jnp.array([0.1, 0.2, 0.3]), jnp.array([1.0, 2.0, 4.0])
  state = state.replace(shift=shift, scale=scale)
  got = model.r_hat_members(state, obs, action)[:, 0]
  np.testing.assert_allclose(got, (plain - shift) / scale, rtol=1e-5)


def test_aggregations():
  members = np.array([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]])
  x = jnp.asarray(members)
  mean, std = members.mean(0), members.std(0)
  np.testing.assert_allclose(aggregate(x, 'mean', 2.0), mean)
  np.testing.assert_allclose(aggregate(x, 'min', 2.0), [1, 5])
  np.testing.assert_allclose(aggregate(x, 'mean_minus_std', 2.0), mean - 2 * std)
  np.testing.assert_allclose(
    aggregate(x, 'mean_plus_std', 0.5), mean + 0.5 * std, rtol=1e-6
  )
  with pytest.raises(ValueError, match='aggregation=median is not one of'):
    aggregate(x, 'median', 1.0)


def test_seeds_are_an_axis():
  model = make_reward_model(OPTIONS, DS, DA)
  states = jax.vmap(model.init)(jax.random.split(KEY, 2))
  obs = jax.random.normal(jax.random.key(1), (2, 6, DS))
  action = jnp.zeros((2, 6, DA))
  both = jax.vmap(model.r_hat)(states, obs, action)
  for i in range(2):
    state = jax.tree.map(lambda x, i=i: x[i], states)
    np.testing.assert_allclose(
      both[i], model.r_hat(state, obs[i], action[i]), atol=1e-6
    )


def test_refusal():
  model = make_reward_model(OPTIONS, DS, DA)
  with pytest.raises(ValueError, match=r'observations \[\.\.\., 5\]'):
    model.r_hat(model.init(KEY), jnp.zeros((4, DS + 1)), jnp.zeros((4, DA)))
