"""How all programs of a run are compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from rlfb_jax.bin import launch
from rlfb_jax.methods.algorithm import Session
from rlfb_jax.training import program
from rlfb_jax.training import run as run_lib
from rlfb_jax.training.placement import Placement
from tests.core.programs import products

ROWS = jnp.ones((2, 3))
HIGH = (jax.lax.Precision.HIGH, jax.lax.Precision.HIGH)
ONE_DEVICE = Placement(
  Mesh(
    np.array(jax.devices()[:1]).reshape(1, 1),
    ('seed', 'data'),
    axis_types=(AxisType.Auto,) * 2,
  )
)


def multiply(state):
  return state @ jnp.ones((3, 3))


class Algorithm:
  """As much of one as is compiled, with a product in each function."""

  def __init__(self):
    self.chunks = {'learn': lambda state: (multiply(state), {})}
    self.events = {'outer_step': lambda state: (multiply(state), {})}
    self.session = Session(
      propose=lambda state, strategies, wanted: (multiply(state), state, state),
      teach=lambda queries, key: queries,
      absorb=lambda state, queries, answers, wanted: (multiply(state), {}),
    )

  def init(self, row):
    return multiply(row)

  def diagnose(self, state):
    return multiply(state), {}


@pytest.fixture
def jitted(monkeypatch):
  """On a GPU: the settings of each program that is run, and its products."""
  asked = []

  def jit(function, **settings):
    static = settings.get('static_argnums', ())

    def run(*args):
      made = jax.make_jaxpr(function, static_argnums=static)(*args)
      asked.append((settings['compiler_options'], products(made.jaxpr)))
      return function(*args)

    return run

  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  monkeypatch.setattr(jax, 'jit', jit)
  return asked


@pytest.mark.parametrize('placement', [None, ONE_DEVICE])
def test_on_gpus_all_programs_are_deterministic_and_as_precise_as_asked(
  jitted, placement
):
  algorithm = Algorithm()
  made = program.compile_algorithm(algorithm, placement, precision='tensorfloat32')
  state = made.init(ROWS)
  state, _ = made.chunks['learn'](state)
  state, _ = made.session(state, 1, 'uniform')
  state, _ = made.diagnose(state)
  state, _ = made.events['outer_step'](state)
  made.read(multiply)(state)
  assert len(jitted) == 7  # A session is two.
  for options, found in jitted:
    assert options == {'xla_gpu_deterministic_ops': True}
    assert found == [HIGH]


def test_xla_knows_the_setting():
  options = {'xla_gpu_deterministic_ops': True}
  assert jax.jit(lambda x: x + 1, compiler_options=options)(1.0) == 2.0


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='Of CPUs.')
def test_on_cpus_nothing_is_set(monkeypatch):
  asked = []
  jit = lambda function, **settings: asked.append(settings)  # noqa: E731
  monkeypatch.setattr(jax, 'jit', jit)
  algorithm = Algorithm()
  algorithm.session = None
  program.compile_algorithm(algorithm)
  assert [settings['compiler_options'] for settings in asked] == [None] * 4


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
