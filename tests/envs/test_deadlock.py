"""Programs that hang for ever on two cores, unless the package's setting holds."""

import os
import subprocess
import sys

import jaxlib
import pytest

from rlfb_jax.core import xla_flags

pytestmark = pytest.mark.optimised

FLAG = 'xla_cpu_enable_concurrency_optimized_scheduler'

# Independent batched factorisations in one program; each may wait for the other.
CHOLESKYS = """
from rlfb_jax.core.xla_flags import avoid_cpu_deadlock
avoid_cpu_deadlock()
import jax
import jax.numpy as jnp
a = jax.random.normal(jax.random.key(0), (256, 22, 22))
a = a @ a.swapaxes(1, 2) + jnp.eye(22)
two = jax.jit(lambda a, b: jnp.linalg.cholesky(a).sum() + jnp.linalg.cholesky(b).sum())
for i in range(40):
  assert jnp.isfinite(two(a, a + i * jnp.eye(22)))
"""

QUADRUPED = """
import jax
import jax.numpy as jnp
from rlfb_jax import envs
from rlfb_jax.physics.base import PhysicsState
env = envs.make('quadruped_walk', engine='mjx')
sizes = {'qvel': env.model.nv, 'act': env.model.na, 'qacc_warmstart': env.model.nv}
engine = {name: jnp.zeros((64, size)) for name, size in sizes.items()}
engine['qpos'] = jnp.tile(jnp.asarray(env.model.qpos0, jnp.float32), (64, 1))
engine['time'] = jnp.zeros(64)
physics = PhysicsState(*[None] * 5, engine)
for _ in range(3):
  physics = env.physics.step(physics, jnp.ones((64, 12)), 1)
assert jnp.isfinite(physics.qpos).all()
"""


def run(program, seconds):
  environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  environment['JAX_PLATFORMS'] = 'cpu'
  subprocess.run(
    [sys.executable, '-c', program], env=environment, timeout=seconds, check=True
  )


def test_two_choleskys_finish():
  run(CHOLESKYS, 120)


@pytest.mark.slow
def test_mjx_quadruped_finishes():
  run(QUADRUPED, 400)


@pytest.mark.parametrize(
  ('before', 'version', 'after'),
  [
    (None, '0.10.2', f'--{FLAG}=false'),
    ('--xla_foo=1', '0.10.0', f'--xla_foo=1 --{FLAG}=false'),
    (f'--{FLAG}=true --xla_foo=1', '0.10.2', f'--{FLAG}=true --xla_foo=1'),
    (None, '0.11.2', f'--{FLAG}=false'),
    ('--xla_foo=1', '0.12.0', '--xla_foo=1'),
    (None, '0.9.0', None),
    (None, '0.101.0', None),
  ],
)
def test_flag_is_added_where_known_and_never_over_the_users(
  before, version, after, monkeypatch
):
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  if before is not None:
    monkeypatch.setenv('XLA_FLAGS', before)
  monkeypatch.setattr('importlib.metadata.version', lambda name: version)
  monkeypatch.setattr(xla_flags, '_cpu_has_started', lambda: False)
  xla_flags.avoid_cpu_deadlock()
  assert os.environ.get('XLA_FLAGS') == after


def test_this_process_has_the_setting():
  if jaxlib.__version__.startswith(('0.10.', '0.11.')):
    assert FLAG in os.environ['XLA_FLAGS']


def test_too_late_is_said(monkeypatch):
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  monkeypatch.setattr('importlib.metadata.version', lambda name: '0.10.2')
  monkeypatch.setattr(xla_flags, '_cpu_has_started', lambda: True)
  with pytest.warns(UserWarning, match='before the first array'):
    xla_flags.avoid_cpu_deadlock()
