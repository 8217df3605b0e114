"""In which precision accelerators would multiply: programs are looked at, not run."""

import jax
import jax.numpy as jnp
import pytest
from jax.lax import Precision

from rlfb_jax.core import precision
from rlfb_jax.core.precision import with_precision
from tests.core.programs import products

A, B = jnp.ones((2, 3)), jnp.ones((3, 4))


def traced(function, *args):
  return products(jax.make_jaxpr(function)(*args).jaxpr)


@pytest.fixture
def on_a_gpu(monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')


@pytest.mark.parametrize(
  ('name', 'wanted'),
  [
    ('float32', Precision.HIGHEST),
    ('tensorfloat32', Precision.HIGH),
    ('bfloat16', Precision.DEFAULT),
  ],
)
def test_products_take_the_precision_and_so_do_their_gradients(on_a_gpu, name, wanted):
  assert name in precision.PRECISIONS
  assert traced(with_precision(jnp.dot, name), A, B) == [(wanted, wanted)]
  slope = jax.grad(lambda a, b: jnp.sum(jnp.tanh(a @ b)))
  found = traced(jax.jit(with_precision(slope, name)), A, B)
  assert len(found) == 2
  assert set(found) == {(wanted, wanted)}


def test_a_product_that_asks_for_a_precision_keeps_it(on_a_gpu):
  exact = with_precision(lambda a, b: jnp.matmul(a, b, precision='highest'), 'bfloat16')
  assert traced(exact, A, B) == [(Precision.HIGHEST, Precision.HIGHEST)]


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='Of CPUs.')
def test_on_cpu_programs_stay_as_they_are():
  for name in precision.PRECISIONS:
    assert traced(with_precision(jnp.dot, name), A, B) == [None]


def test_it_ends_with_the_call(on_a_gpu):
  before = traced(jnp.dot, A, B)
  with_precision(jnp.dot, 'tensorfloat32')(A, B)
  assert traced(jnp.dot, A, B) == before
