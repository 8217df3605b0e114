"""The products of the bound are those of a gradient step, no more and no less."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import products
import pytest

from rlfb_jax.agents.ppo import PPOOptions, networks

OPTIONS = PPOOptions()


def _weights(sizes):
  keys = jax.random.split(jax.random.key(0), len(sizes))
  return [
    jax.random.normal(key, shape)
    for key, shape in zip(keys, itertools.pairwise(sizes), strict=False)
  ]


@pytest.mark.parametrize('transpose_first', [False, True])
def test_they_are_the_gradient_of_a_network_without_activations(transpose_first):
  weights = _weights([5, 7, 7, 2])
  inputs = jax.random.normal(jax.random.key(1), (11, 5))

  def half_square(weights):
    outputs = inputs
    for weight in weights:
      outputs = outputs @ weight
    return 0.5 * jnp.sum(outputs**2)  # Its gradient by the outputs is the outputs.

  found = products.gradient_products(weights, inputs, transpose_first)
  for ours, wanted in zip(found, jax.grad(half_square)(weights), strict=True):
    np.testing.assert_allclose(ours, wanted, rtol=2e-5, atol=1e-4)


def test_flops_agree_with_the_compiler():
  sizes = [[24, 256, 256, 6], [24, 256, 256, 1]]
  weights = [_weights(s) for s in sizes]

  @jax.jit
  def all_products(weights, inputs):
    return [products.gradient_products(w, inputs, False) for w in weights]

  compiled = all_products.lower(weights, jnp.zeros((128, 24))).compile()
  # A product with one column on both sides counts as a multiplication there.
  passes = [products.Pass(tuple(s), weights=True) for s in sizes]
  ours = products.count_flops(passes, 128)
  np.testing.assert_allclose(ours, compiled.cost_analysis()['flops'], rtol=1e-3)


def test_sizes_are_the_agents_own():
  params = networks.init_params(jax.random.key(0), 24, 6, OPTIONS)
  wanted = [
    [mlp[0].kernel.shape[0], *(layer.kernel.shape[1] for layer in mlp)]
    for mlp in (params.actor.mlp, params.critic)
  ]
  assert products.network_sizes(24, 6, OPTIONS) == wanted


def test_every_step_of_the_loop_is_counted():
  options = PPOOptions(num_envs=4, rollout_steps=8, minibatch_size=16, hidden_size=4)
  loop = products.make_products(3, 2, options, gradient_steps=5)
  assert loop.gradient_steps == 5
  sizes = products.network_sizes(3, 2, options)
  passes = [products.Pass(tuple(s), weights=True) for s in sizes]
  assert loop.flops == products.count_flops(passes, 16)
  grads = loop.run()
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_the_bound_by_hand():
  # 20 epochs of minibatches of 128: 20/128 gradient steps an environment step.
  per_step = products.seconds_per_env_step(640e-6, OPTIONS)
  assert per_step == pytest.approx(100e-6)
  # 1/40,000 s of physics and 100 us of products.
  assert products.bound(40_000.0, per_step) == pytest.approx(8000.0)
