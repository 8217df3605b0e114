"""How the repulsion's gradient joins that of the reward."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.agents.ppo import PPOOptions
from rlfb_jax.core.padding import Padded
from rlfb_jax.feedback import rating_store as store_lib
from rlfb_jax.feedback.clips import Clip
from rlfb_jax.methods.algorithm import PerKind
from rlfb_jax.methods.feedback import _boundaries, _no_boundaries, predict_classes
from rlfb_jax.methods.intervene import make_intervention, repulsion_policy
from rlfb_jax.repulsion import RepulsionOptions, make_repulsion

RL = {'w': jnp.array([30.0, 40.0])}
TERM = {'w': jnp.array([0.0, -100.0])}


def _combine(approx_kl=0.0, saturated=0.0, signal_norm=8.0, **changes):
  """The push that is left of `TERM`, and the metrics."""
  options = RepulsionOptions(gradient_budget=0.25)
  options = dataclasses.replace(options, **changes)
  policy = repulsion_policy(PPOOptions())
  repulsion = make_repulsion(options, policy, 3, 2, 1)
  parts = make_intervention(repulsion, policy, options, lambda *_: 0.0, 1, 10, 5)
  feedback = SimpleNamespace(classes=repulsion.init(), repelling=jnp.array(True))
  experience = SimpleNamespace(
    obs=jnp.zeros((10, 10, 2)),
    pre_tanh=jnp.zeros((10, 10, 1)),
    log_prob=jnp.zeros((10, 10)),
    action=jnp.where(jnp.arange(100) < round(100 * saturated), -1.0, 0.5).reshape(
      10, 10, 1
    ),
  )
  regulariser = parts.regulariser(feedback, None, experience)
  signal = () if signal_norm is None else (jnp.float32(signal_norm),)
  joined, metrics = regulariser.combine(RL, TERM, jnp.float32(approx_kl), *signal)
  push = np.asarray(joined['w'] - RL['w'])
  assert push[0] == 0
  return -push[1], metrics


def test_the_budget_counts_in_the_signal_or_in_the_minibatch():
  push, metrics = _combine()
  assert push == pytest.approx(0.25 * 8)
  assert metrics['kl/signal_share'] == pytest.approx(8 / 50)
  assert metrics['kl/gradient_ratio'] == pytest.approx(100 / 50)
  for arguments in (
    {'gradient_budget_reference': 'minibatch'},
    {'signal_norm': None},  # Agents that do not keep it.
  ):
    push, metrics = _combine(**arguments)
    assert push == pytest.approx(0.25 * 50)
    assert metrics['kl/signal_share'] == 1
  assert _combine(signal_norm=0.0)[0] == 0


def test_the_push_fades_with_saturation_below_the_budget_too():
  for saturated, room in ((0.0, 1.0), (0.3, 0.5), (0.6, 0.0), (0.9, 0.0)):
    push, metrics = _combine(saturated=saturated)
    assert push == pytest.approx(0.25 * 8 * room, abs=1e-5)
    assert metrics['kl/room'] == pytest.approx(room, abs=1e-6)
  assert _combine(saturated=0.9, saturation_limit=1e9)[0] == pytest.approx(2.0)


def test_a_budget_of_zero_leaves_advantages_alone_and_finite():
  options = RepulsionOptions(kl_mode='ratio', gradient_budget=0.0)
  policy = repulsion_policy(PPOOptions())
  repulsion = make_repulsion(options, policy, 3, 2, 1)
  parts = make_intervention(repulsion, policy, options, lambda *_: 0.0, 1, 10, 5)
  # Nothing was rated yet: every class is masked, and the bonus is nothing.
  feedback = SimpleNamespace(classes=repulsion.init(), repelling=jnp.array(True))
  experience = SimpleNamespace(obs=jnp.ones((10, 4, 2)), action=jnp.zeros((10, 4, 1)))
  found = parts.shape_advantages(feedback, experience)
  np.testing.assert_array_equal(found, np.zeros((10, 4)))


def test_the_push_rests_once_the_policy_has_moved_far():
  assert _combine(approx_kl=0.049)[0] > 0
  assert _combine(approx_kl=0.051)[0] == 0


@pytest.mark.parametrize('labels', [(0, 1, 2), (0, 1), (1, 2), (0, 2), ()], ids=str)
def test_no_clip_is_better_than_the_best_class_of_a_run(labels):
  store = store_lib.init_ratings(16, 5, 1, 1, 1)
  if labels:
    rating = np.resize(labels, 12)
    level = jnp.asarray(rating + np.linspace(0, 1, 12), jnp.float32)
    shape = (12, 5, 1)
    clip = Clip(jnp.broadcast_to(level[:, None, None], shape), *[jnp.zeros(shape)] * 2)
    skipped = jnp.zeros(12, bool)
    store = store_lib.append(store, clip, jnp.asarray(rating), skipped, env_steps=0)
  state = SimpleNamespace(answers=PerKind(store, None), reward_model=None)
  model = SimpleNamespace(r_hat=lambda _, obs, action: obs[..., 0])
  want = _boundaries(state, model, 3)
  got = jax.jit(lambda n: _boundaries(state, model, Padded(n, 6)))(jnp.int32(3))
  np.testing.assert_allclose(got[:2], want, rtol=1e-6)
  rewards = jnp.repeat(jnp.linspace(-1.0, 9.0, 41)[None], 5, axis=0)
  for ours, theirs in (
    (got, want),
    (_no_boundaries(Padded(jnp.int32(3), 6)), _no_boundaries(3)),
  ):
    assert ours.shape == (5,)
    np.testing.assert_array_equal(
      predict_classes(ours, rewards, 5), predict_classes(theirs, rewards, 5)
    )
