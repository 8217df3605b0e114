"""How all programs of a run are compiled."""

import jax
import jax.numpy as jnp
import pytest

from rlfb_jax.bin import launch
from rlfb_jax.training import program
from rlfb_jax.training import run as run_lib
from tests.core.programs import products

ROWS = jnp.ones((2, 3))


class Algorithm:
  """As much of one as is compiled, with a product in each function."""

  def __init__(self):
    self.chunks = {'learn': lambda state: (state @ jnp.ones((3, 3)), {})}
    self.events = {'outer_step': lambda state: (state @ jnp.ones((3, 3)), {})}
    self.session = None

  def init(self, row):
    return row @ jnp.ones((3, 3))

  def diagnose(self, state):
    return state, {'sum': jnp.sum(state @ jnp.ones((3, 3)))}

  def policy(self, state):
    return state @ jnp.ones((3, 3))


@pytest.fixture
def jitted(monkeypatch):
  """On a GPU: what `jax.jit` was asked for, and with which settings."""
  asked = []

  def jit(function, **settings):
    asked.append((function, settings))
    return function

  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  monkeypatch.setattr(jax, 'jit', jit)
  return asked


def test_on_gpus_all_programs_are_deterministic_and_as_precise_as_asked(jitted):
  functions = program.compile_algorithm(Algorithm(), precision='tensorfloat32')
  functions.read(Algorithm().policy)
  assert len(jitted) == 5
  high = jax.lax.Precision.HIGH
  for function, settings in jitted:
    assert settings['compiler_options'] == {'xla_gpu_deterministic_ops': True}
    found = products(jax.make_jaxpr(function)(ROWS).jaxpr)
    assert found == [(high, high)]


def test_xla_knows_the_setting():
  options = {'xla_gpu_deterministic_ops': True}
  assert jax.jit(lambda x: x + 1, compiler_options=options)(1.0) == 2.0


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='Of CPUs.')
def test_on_cpus_nothing_is_set(monkeypatch):
  asked = []
  monkeypatch.setattr(jax, 'jit', lambda function, **settings: asked.append(settings))
  program.compile_algorithm(Algorithm())
  assert {settings['compiler_options'] for settings in asked} == {None}


def test_a_run_is_compiled_in_its_precision(tmp_path, monkeypatch):
  class SeenError(Exception):
    pass

  def compile_algorithm(algorithm, placement, precision):
    raise SeenError(precision)

  monkeypatch.setattr(run_lib, 'compile_algorithm', compile_algorithm)
  flags = ['--task=probe_choice', '--method=ppo', '--matmul_precision=bfloat16']
  begun = launch.begin([*flags, f'--run_dir={tmp_path / "run"}'])
  with pytest.raises(SeenError, match='bfloat16'):
    run_lib.train_run(*begun)
