"""The composed term: openings, masks, gates, budget, seeds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from rlfb_jax.bin import launch
from rlfb_jax.repulsion import (
  PolicyBatch,
  RepulsionOptions,
  limit_gradient,
  make_repulsion,
)
from rlfb_jax.repulsion.heads import unlikelihood
from rlfb_jax.repulsion.ratio import importance_weights
from rlfb_jax.repulsion.records import ClassStatistics

DIRECTIONS = ['forward', 'reverse', 'bhattacharyya']


def _batch(num: int = 64) -> PolicyBatch:
  obs = jax.random.normal(jax.random.key(0), (num, toy.NUM_STATES))
  raw = jax.random.normal(jax.random.key(1), (num, toy.NUM_ACTIONS))
  mean, _ = toy.policy(toy.start(), obs)
  z = (raw - mean) / np.exp(toy.LOG_STD)
  log_prob = jnp.sum(-(z**2) / 2 - toy.LOG_STD - np.log(2 * np.pi) / 2, axis=-1)
  return PolicyBatch(obs=obs, raw_action=raw, log_prob=log_prob)


def test_modes_reach_the_agent_through_their_own_opening_only() -> None:
  openings = {
    'pathwise': (True, False, False),
    'ratio': (False, True, False),
    'heads_unlikelihood': (True, False, False),
    'heads_gaussian': (True, False, False),
    'influence': (False, False, True),
    'logged_only': (False, False, False),
  }
  for mode, expected in openings.items():
    made = make_repulsion(RepulsionOptions(kl_mode=mode), toy.policy, 3, 3, 1)
    parts = (made.term, made.shape_advantages, made.shape_rewards)
    assert tuple(part is not None for part in parts) == expected, mode
  options = RepulsionOptions(kl_mode='ratio', ratio_form='objective')
  assert make_repulsion(options, toy.policy, 3, 3, 1).term is not None
  none = make_repulsion(RepulsionOptions(beta=0.0), toy.policy, 3, 3, 1)
  assert none.term is None


def test_the_public_code_has_a_value_but_no_gradient() -> None:
  repulsion, stats = toy.two_class_setup(launch.parse(['--preset=hpml_code']).kl)
  assert repulsion.term is None
  value, slope = jax.jit(jax.value_and_grad(repulsion.value))(
    toy.start(), stats, _batch(), jax.random.key(2)
  )
  assert np.isfinite(value)
  assert value != 0
  for leaf in jax.tree.leaves(slope):
    np.testing.assert_array_equal(leaf, np.zeros_like(leaf))


@pytest.mark.parametrize(
  ('options', 'names'),
  [
    ({'kl_mode': 'heads_gaussian', 'direction': 'reverse'}, 'heads_gaussian'),
    ({'weights': 'hpml', 'include_best': True}, 'include_best'),
    ({'kl_mode': 'heads_unlikelihood', 'bound': 'logsum'}, 'logsum'),
    ({'kl_mode': 'ratio', 'sigma_grad': True}, 'sigma_grad'),
    ({'kl_mode': 'influence', 'sigma_grad': True}, 'sigma_grad'),
  ],
)
def test_contradictions_are_refused(options: dict[str, str], names: str) -> None:
  with pytest.raises(ValueError, match=names):
    make_repulsion(RepulsionOptions(**options), toy.policy, 3, 3, 1)


def _poisoned(stats: ClassStatistics) -> ClassStatistics:
  """All masks closed, and NaN in everything behind them."""
  nan = lambda leaf: jnp.full_like(leaf, jnp.nan)  # noqa: E731
  return dataclasses.replace(
    stats,
    gaussian=jax.tree.map(nan, stats.gaussian),
    heads=jax.tree.map(nan, stats.heads),
    mask=jnp.zeros_like(stats.mask),
  )


CASES = [
  RepulsionOptions(),
  RepulsionOptions(bound='logsum', kl_scope='joint', weights='pooled'),
  RepulsionOptions(direction='reverse'),
  RepulsionOptions(direction='bhattacharyya', sigma_grad=True),
  RepulsionOptions(kl_mode='ratio', ratio_form='objective'),
  RepulsionOptions(kl_mode='heads_gaussian', kl_batch=64),
  RepulsionOptions(kl_mode='heads_gaussian', kl_batch=64, head_states='policy'),
  RepulsionOptions(kl_mode='heads_unlikelihood', kl_batch=64),
]


@pytest.mark.parametrize(
  'options', CASES, ids=lambda o: f'{o.kl_mode}-{o.direction}-{o.head_states}'
)
def test_masked_classes_have_neither_value_nor_gradient(
  options: RepulsionOptions,
) -> None:
  """Under jit, and under vmap over seeds beside a seed whose classes are live."""
  repulsion, live = toy.two_class_setup(options)
  term = repulsion.term
  assert term is not None
  fresh, dead = jax.jit(repulsion.init)(), _poisoned(live)
  assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, live)
  assert jax.tree.map(lambda x: x.dtype, fresh) == jax.tree.map(lambda x: x.dtype, live)
  stats = jax.tree.map(lambda *leaves: jnp.stack(leaves), live, dead, fresh)
  keys = jax.random.split(jax.random.key(3), 3)

  @jax.jit
  @jax.vmap
  def slope(stats: ClassStatistics, key: jax.Array) -> tuple[jax.Array, toy.Params]:
    return jax.value_and_grad(lambda p: term(p, stats, _batch(), key)[0])(toy.start())

  value, gradient = slope(stats, keys)
  np.testing.assert_array_equal(value[1:], np.zeros(2))
  np.testing.assert_array_equal(gradient['gain'][1:], np.zeros((2, 3, 1)))
  np.testing.assert_array_equal(gradient['log_std'][1:], np.zeros((2, 1)))
  assert value[0] != 0
  assert np.any(gradient['gain'][0] != 0)
  assert np.any(gradient['log_std'][0] != 0) == options.sigma_grad


@pytest.mark.parametrize('mode', ['influence', 'ratio'])
def test_masked_classes_shape_nothing(mode: str) -> None:
  """Under jit, and under vmap over seeds beside a seed whose classes are live."""
  repulsion, live = toy.two_class_setup(RepulsionOptions(kl_mode=mode))
  shape = repulsion.shape_rewards or repulsion.shape_advantages
  assert shape is not None
  fresh, dead = jax.jit(repulsion.init)(), _poisoned(live)
  stats = jax.tree.map(lambda *leaves: jnp.stack(leaves), live, dead, fresh)
  batch = _batch()
  action = jnp.tanh(jnp.asarray(batch.raw_action))
  found = jax.jit(jax.vmap(lambda s: shape(s, batch.obs, action)))(stats)
  np.testing.assert_array_equal(found[1:], np.zeros((2, 64)))
  assert np.isfinite(found[0]).all()
  assert np.abs(found[0]).max() > 1e-3


def test_importance_weights_are_clipped_and_then_have_no_slope() -> None:
  options = RepulsionOptions(kl_mode='ratio', ratio_clip=2.0)
  batch, params = _batch(), toy.start()
  moved = dict(params, gain=params['gain'] + 0.8)

  def weights(gain: jax.Array, rows: slice = slice(None)) -> jax.Array:
    part = jax.tree.map(lambda x: x[rows], batch)
    return importance_weights(options, toy.policy, dict(moved, gain=gain), part)

  mean, _ = toy.policy(moved, batch.obs)
  z = (np.asarray(batch.raw_action, np.float64) - mean) / np.exp(toy.LOG_STD)
  log_prob = (-(z**2) / 2 - toy.LOG_STD - np.log(2 * np.pi) / 2).sum(axis=-1)
  ratio = np.exp(log_prob - np.asarray(batch.log_prob))
  found = weights(moved['gain'])
  np.testing.assert_allclose(found, np.clip(ratio, 0.5, 2.0), rtol=1e-4)
  far, near = np.argmax(np.abs(np.log(ratio))), np.argmin(np.abs(np.log(ratio)))
  assert np.abs(np.log(ratio[far])) > np.log(2.2)
  for row, moves in ((far, False), (near, True)):
    rows = slice(int(row), int(row) + 1)
    slope = jax.grad(lambda g, rows=rows: weights(g, rows)[0])(moved['gain'])
    assert np.any(slope != 0) == moves


def test_unlikelihood_stops_where_the_uniform_law_is_no_less_likely() -> None:
  options = RepulsionOptions(kl_mode='heads_unlikelihood', kl_batch=64)
  _, stats = toy.two_class_setup(options)
  ones = jax.tree.map(jnp.ones_like, stats.samples)
  same = dataclasses.replace(ones, action=0.9 * ones.action)
  stats = dataclasses.replace(stats, samples=same)

  def value(gain: jax.Array) -> jax.Array:
    params = dict(toy.start(), gain=jnp.full((3, 1), gain))
    key, rows = jax.random.key(0), jnp.array([0])
    return unlikelihood(options, toy.policy, rows, params, stats, _batch(), key)[0]

  # All actions are 1.47 before tanh; the policy's mean is three times its gain.
  far, slope = jax.value_and_grad(value)(-2.0)
  np.testing.assert_allclose(far, np.log(2), rtol=1e-6)
  assert slope == 0
  near, slope = jax.value_and_grad(value)(0.4)
  assert near < far - 0.5
  assert slope < 0


def test_one_broken_class_leaves_the_others_alone() -> None:
  options = RepulsionOptions(include_best=True)
  repulsion, stats = toy.two_class_setup(options)
  term = repulsion.term
  assert term is not None
  slope = jax.jit(
    jax.value_and_grad(lambda p, s: term(p, s, _batch(), jax.random.key(3))[0])
  )
  closed = dataclasses.replace(stats, mask=stats.mask.at[1].set(False))
  gaussian = jax.tree.map(lambda x: x.at[1].set(jnp.nan), stats.gaussian)
  broken = dataclasses.replace(stats, gaussian=gaussian)
  gated = dataclasses.replace(stats, gate=stats.gate.at[1].set(False))
  expected = slope(toy.start(), closed)
  for other in (broken, gated):
    jax.tree.map(np.testing.assert_array_equal, slope(toy.start(), other), expected)
  assert not np.array_equal(slope(toy.start(), stats)[0], expected[0])


@pytest.mark.parametrize('direction', DIRECTIONS)
def test_influence_bonus_has_mean_zero_and_is_clipped(direction: str) -> None:
  options = RepulsionOptions(
    kl_mode='influence', direction=direction, influence_clip=0.5
  )
  repulsion, stats = toy.two_class_setup(options)
  wide = make_repulsion(
    dataclasses.replace(options, influence_clip=1e6), toy.policy, 2, 3, 1
  )
  obs = jax.random.normal(jax.random.key(0), (20, 30, 3)) + 0.5
  action = jnp.tanh(jax.random.normal(jax.random.key(1), (20, 30, 1)))
  assert repulsion.shape_rewards is not None
  assert wide.shape_rewards is not None
  free = jax.jit(wide.shape_rewards)(stats, obs, action)
  clipped = jax.jit(repulsion.shape_rewards)(stats, obs, action)
  assert free.shape == clipped.shape == (20, 30)
  assert abs(jnp.sum(free)) < 1e-4 * jnp.sum(jnp.abs(free))
  assert jnp.max(jnp.abs(free)) > jnp.max(jnp.abs(clipped))
  assert jnp.max(jnp.abs(clipped)) <= options.beta * 0.5 * (1 + 1e-6)


def test_shaping_equals_the_gradient_of_the_reweighted_divergence() -> None:
  """At the policy that acted: the two forms of the ratio mode agree."""
  shaping = RepulsionOptions(kl_mode='ratio')
  objective = dataclasses.replace(shaping, ratio_form='objective')
  repulsion, stats = toy.two_class_setup(shaping)
  term = toy.two_class_setup(objective)[0].term
  assert term is not None
  assert repulsion.shape_advantages is not None
  batch, start = _batch(512), toy.start()
  bonus = jax.jit(repulsion.shape_advantages)(
    stats, batch.obs, jnp.tanh(jnp.asarray(batch.raw_action))
  )

  def surrogate(gain: jax.Array) -> jax.Array:
    mean, log_std = toy.policy(dict(start, gain=gain), batch.obs)
    z = (jnp.asarray(batch.raw_action) - mean) / jnp.exp(log_std)
    return -jnp.mean(bonus * jnp.sum(-(z**2) / 2, axis=-1))

  direct = jax.jit(jax.grad(lambda p: term(p, stats, batch, jax.random.key(0))[0]))
  np.testing.assert_allclose(
    jax.grad(surrogate)(start['gain']), direct(start)['gain'], rtol=1e-3, atol=1e-6
  )


def test_budget() -> None:
  rl = {'w': jnp.array([3.0, 4.0])}
  limited, metrics = limit_gradient({'w': jnp.array([0.0, 50.0])}, rl, 0.5)
  np.testing.assert_allclose(limited['w'], [0, 2.5], rtol=1e-6)
  np.testing.assert_allclose(metrics['kl/gradient_ratio'], 10, rtol=1e-6)
  small, _ = limit_gradient({'w': jnp.array([0.1, 0.2])}, rl, 0.5)
  np.testing.assert_allclose(small['w'], [0.1, 0.2])
  for bad in (jnp.nan, jnp.inf):
    dropped, metrics = limit_gradient({'w': jnp.array([0.0, bad])}, rl, 0.5)
    np.testing.assert_array_equal(dropped['w'], [0, 0])
    assert metrics['kl/gradient_dropped'] == 1
  zero, _ = limit_gradient({'w': jnp.zeros(2)}, rl, 0.5)
  np.testing.assert_array_equal(zero['w'], [0, 0])


def test_refitting_compiles_once() -> None:
  options = RepulsionOptions(kl_mode='heads_gaussian', kl_batch=16)
  repulsion = make_repulsion(options, toy.policy, 3, 3, 1)
  traces = []

  @jax.jit
  def session(stats: ClassStatistics, num: jax.Array) -> ClassStatistics:
    traces.append(None)
    obs, action = toy.clips(jax.random.key(0), num=60)
    rating = jnp.arange(60) % 3
    del stats
    return repulsion.fit(jax.random.key(1), obs, action, rating, jnp.arange(60) < num)

  stats = repulsion.init()
  for num in (0, 30, 60):
    stats = session(stats, jnp.asarray(num))
  assert len(traces) == 1
  np.testing.assert_array_equal(stats.num_segments, [20, 20, 20, 40])
