"""The benchmark of the repulsion: which gradients it compares, and what it says."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import repulsion_cost as cost

from rlfb_jax.agents.regulariser import Regulariser


def test_a_small_run_measures_all_three(tmp_path):
  out = tmp_path / 'new' / 'raw.json'
  cost.main(['--quick', f'--out={out}'])
  results = json.loads(out.read_text())
  assert [point['env_steps'] for point in results['points']] == [32, 64]
  for point in results['points']:
    assert sum(point['class_counts']) == point['env_steps'] // 8
    # Three epochs of two minibatches, which share one evaluation.
    assert (len(point['staleness']), len(point['sampling'])) == (2, 3)
    # Two steps of this size move a gradient less than another batch of states does.
    assert 0.999 < min(point['staleness']) <= max(point['staleness']) < 1 + 1e-9
    assert max(point['sampling']) < 0.99
    assert np.ptp(point['sampling']) > 0.01  # Each time other batches.
  assert set(results['seconds']) == {cost.TERM, cost.MINIBATCH}
  assert 'Shared by 2 minibatches' in out.with_suffix('.md').read_text()


def test_watching_tells_gradients_at_the_same_parameters_and_changes_nothing():
  def loss(actor, key):
    return jnp.sum(actor**2 * jax.random.uniform(key, actor.shape)), {}

  regulariser, told = Regulariser(loss, combine=None, refresh_every=1), []
  seen = cost.watched(regulariser, told.append)
  actors = jnp.array([[1.0, 2.0], [3.0, 5.0]])
  keys = jax.random.split(jax.random.key(7))
  grad = jax.grad(seen.loss, has_aux=True)
  ours = jax.jit(lambda: jax.lax.map(lambda x: grad(*x)[0], (actors, keys)))()
  jax.effects_barrier()
  for i in range(2):
    plain, _ = jax.grad(loss, has_aux=True)(actors[i], keys[i])
    np.testing.assert_array_equal(ours[i], plain)
  # The weights of each batch, which are all that is left once the actor is divided out.
  weights = [jax.tree.map(lambda g, i=i: g / actors[i], told[i]) for i in range(2)]
  np.testing.assert_allclose(weights[0].held, weights[1].held, rtol=1e-6)
  drawn = [w for one in weights for w in (one.first, one.second)]
  assert len({tuple(np.asarray(w).round(4)) for w in [*drawn, weights[0].held]}) == 5


def test_cosines_are_of_rows():
  a = np.array([[1.0, 0.0], [1.0, 1.0]])
  b = np.array([[2.0, 0.0], [0.0, -3.0]])
  assert cost.cosines(a, b) == pytest.approx([1.0, -np.sqrt(0.5)])
  with pytest.raises(RuntimeError, match='no class pushes'):
    cost.cosines(a, np.zeros((2, 2)))


def test_the_price_is_shared_by_the_minibatches():
  results = {
    'command': ['python', 'benchmarks/repulsion_cost.py'],
    'started': 'today',
    'processor': 'one',
    'cores': 2,
    'load_average': 0.0,
    'versions': {'jax': '1'},
    'flags': ['--method=rbrl_kl'],
    'kl_batch': 1024,
    'minibatch_size': 128,
    'minibatches_of_one': 25,
    'seconds': {cost.TERM: [4.0, 5.0, 6.0], cost.MINIBATCH: [1.0, 1.0, 1.0]},
    'points': [
      {
        'env_steps': 32_000,
        'class_counts': [99, 1],
        'staleness': [0.9, 0.98, 1.0],
        'sampling': [0.8],
      }
    ],
  }
  text = cost.markdown(results)
  assert 'takes 5.00 [4.00-6.00] times' in text
  assert 'it adds 20.0 [16.0-24.0] %' in text
  assert '| 32,000 | 99, 1 | 0.980 [0.900-1.000] | 0.800 |' in text
