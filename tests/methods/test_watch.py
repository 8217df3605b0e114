"""Who pushes, what is looked at, and when a look counts against the push."""

import dataclasses
from types import SimpleNamespace

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.core import distributions
from rlfb_jax.feedback import archive as archive_lib
from rlfb_jax.methods.intervene import make_intervention
from rlfb_jax.methods.watch import live_classes, look, worth
from rlfb_jax.repulsion import PolicyBatch, RepulsionOptions, make_repulsion

STEPS, ENVS, N = 12, 4, 3


class Feedback(flax.struct.PyTreeNode):
  """What a look reads and writes."""

  classes: object
  strikes: jax.Array = dataclasses.field(default_factory=lambda: jnp.int32(0))
  repelling: jax.Array = dataclasses.field(default_factory=lambda: jnp.array(True))
  env_steps: int = 0
  boundaries: jax.Array | None = None
  archive: object = None


def policy(params, obs):
  return obs[..., :1] * params, jnp.zeros(1)


def see_collapsed(feedback, repulsion):
  return look(repulsion, feedback, jnp.float32(0.0), jnp.float32(1.0), 1)


def measure(feedback, repulsion):
  batch = PolicyBatch(obs=jnp.ones((8, 2)))
  key = jax.random.key(0)
  return worth(repulsion, feedback, live_classes(feedback), 1.0, batch, key)


def rated(repulsion, counts):
  """Classes of so many segments each."""
  rating = np.repeat(np.arange(N), counts)
  obs = (
    np.random.default_rng(0).normal(size=(len(rating), 5, 2)) + rating[:, None, None]
  )
  return repulsion.fit(
    jax.random.key(0),
    jnp.asarray(obs, jnp.float32),
    jnp.asarray(obs[..., :1] / 9, jnp.float32),
    jnp.asarray(rating),
    jnp.ones(len(rating), bool),
  )


@pytest.mark.parametrize(
  ('counts', 'pushes'),
  # Eight segments open a row. The best class pushes nobody, nor do two thin ones
  # together where each has a weight of its own.
  [((0, 0, 20), False), ((4, 4, 20), False), ((0, 8, 0), True), ((8, 0, 0), True)],
)
def test_only_what_pushes_can_be_at_fault(counts, pushes):
  repulsion = make_repulsion(RepulsionOptions(), policy, N, 2, 1)
  feedback = Feedback(rated(repulsion, counts))
  assert bool(jnp.any(feedback.classes.mask))
  for _ in range(5):
    feedback = see_collapsed(feedback, repulsion)
  metrics = measure(feedback, repulsion)
  assert int(feedback.strikes) == 5 * pushes
  assert bool(feedback.repelling) is not pushes
  assert float(metrics['kl/repelling']) == 1 - pushes
  # What has been switched off is worth nothing.
  assert float(metrics['kl/value']) == 0


def test_the_value_is_that_of_the_push_as_it_is_made():
  options = RepulsionOptions(kl_mode='influence')
  influence = make_repulsion(options, policy, N, 2, 1)
  classes = rated(influence, (10, 10, 10))
  metrics = measure(Feedback(classes), influence)
  joint = RepulsionOptions(kl_scope='joint')
  same = measure(Feedback(classes), make_repulsion(joint, policy, N, 2, 1))
  plain = make_repulsion(RepulsionOptions(), policy, N, 2, 1)
  other = measure(Feedback(classes), plain)
  assert float(metrics['kl/value']) == pytest.approx(float(same['kl/value']), rel=1e-6)
  assert float(metrics['kl/value']) > 1.05 * float(other['kl/value']) > 0


def _newest(seen, boundaries=(-2.0, -1.0), **options):
  """PPO's look at a rollout whose observations are (step, environment).

  It is rated by its steps, which are above the given boundaries or not.
  """
  options = RepulsionOptions(kl_batch=2 * ENVS * STEPS, **options)

  def watched(params, obs):
    if not isinstance(obs, jax.core.Tracer):
      seen.append(np.asarray(obs))
    return policy(0.0, obs)

  repulsion = make_repulsion(options, watched, N, 2, 1)
  parts = make_intervention(
    repulsion, watched, options, lambda _, obs, __: obs[..., 0], 1, STEPS, 4
  )
  index = jnp.stack(
    jnp.meshgrid(jnp.arange(STEPS), jnp.arange(ENVS), indexing='ij'), -1
  ).astype(jnp.float32)
  archive = archive_lib.init_archive(STEPS, STEPS, ENVS, 2, 1, 1)
  zeros = jnp.zeros((STEPS, ENVS, 1))
  archive = archive_lib.append(
    archive,
    archive_lib.ArchivedSteps(
      obs=index,
      action=zeros,
      **{
        f.name: jnp.zeros_like(getattr(archive.steps, f.name))
        for f in dataclasses.fields(archive_lib.ArchivedSteps)
        if f.name not in ('obs', 'action')
      },
    ),
  )
  feedback = Feedback(
    rated(repulsion, (10, 10, 10)),
    boundaries=jnp.array(boundaries),
    archive=archive,
  )
  agent = SimpleNamespace(params=SimpleNamespace(actor=None), statistics=None)
  return parts.diagnose(feedback, agent)


def test_a_look_is_at_all_environments_and_all_steps():
  seen = []
  _newest(seen)
  (obs, *_) = seen
  assert set(obs[:, 1]) == set(range(ENVS))
  # Two draws a step and environment on average: all but a few steps are hit.
  assert len(set(obs[:, 0])) == STEPS


def test_what_the_gate_has_closed_is_worth_nothing():
  # The best class has all others below it, the worst none.
  best = _newest([], below_median=True)
  plain = _newest([])
  assert float(best['kl/value']) == float(plain['kl/value']) > 0
  worst = _newest([], boundaries=(99.0, 100.0), below_median=True)
  assert float(worst['kl/value']) == 0


def test_ppo_looks_at_every_rollout_and_a_healthy_one_starts_anew():
  options = RepulsionOptions(kl_batch=8)
  repulsion = make_repulsion(options, policy, N, 2, 1)
  parts = make_intervention(repulsion, policy, options, None, 1, STEPS, 4)

  def rollout(mean, std, seed=0):
    rng = np.random.default_rng(seed)
    raw = jnp.asarray(rng.normal(mean, std, (STEPS, ENVS, 1)), jnp.float32)
    density = distributions.log_prob(
      raw, jnp.float32(mean), jnp.log(jnp.float32([std]))
    )
    return SimpleNamespace(pre_tanh=raw, log_prob=density, action=jnp.tanh(raw))

  healthy, narrow, saturated = rollout(0, 0.5), rollout(0, 1e-3), rollout(9, 0.5)
  feedback = Feedback(rated(repulsion, (10, 10, 10)))
  struck = []
  for seen in [narrow, saturated, healthy, *[narrow] * 4]:
    feedback = parts.look(feedback, seen)
    struck.append(int(feedback.strikes))
  assert struck == [1, 2, 0, 1, 2, 3, 4]
  assert bool(feedback.repelling)
  feedback = parts.look(feedback, saturated)
  assert not bool(feedback.repelling)
  # For good.
  assert not bool(parts.look(feedback, healthy).repelling)


@pytest.mark.parametrize('std', [0.02, 0.5])
def test_the_entropy_that_is_looked_at_is_that_of_executed_actions(std, monkeypatch):
  """-5 and -0.2 nats: against a histogram of what was done."""
  looks = []

  def look(repulsion, feedback, entropy, saturation, action_size):
    looks.append((float(entropy), float(saturation)))
    return feedback

  monkeypatch.setattr('rlfb_jax.methods.intervene.look', look)
  options = RepulsionOptions(kl_batch=8)
  repulsion = make_repulsion(options, policy, N, 2, 1)
  parts = make_intervention(repulsion, policy, options, None, 1, STEPS, 4)
  raw = np.random.default_rng(0).normal(0.8, std, (200_000, 1, 1)).astype(np.float32)
  density = distributions.log_prob(jnp.asarray(raw), 0.8, jnp.log(jnp.array([std])))
  action = np.tanh(raw)
  parts.look(
    None, SimpleNamespace(pre_tanh=jnp.asarray(raw), log_prob=density, action=action)
  )
  mass, edges = np.histogram(action, bins=400, density=True)
  width, mass = edges[1] - edges[0], mass[mass > 0]
  ((entropy, saturation),) = looks
  assert entropy == pytest.approx(-np.sum(mass * np.log(mass)) * width, abs=0.02)
  assert saturation == pytest.approx(np.mean(np.abs(action) > 0.97), abs=1e-6)
