import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.feedback import pair_queries, preference_store
from rlfb_jax.feedback.clips import Clip
from rlfb_jax.feedback.pair_pool import CandidatePairs
from rlfb_jax.feedback.pair_queries import PAIR_STRATEGIES, Asked

P, H, K, C = 40, 5, 3, 6
KEY = jax.random.key(0)
RNG = np.random.default_rng(1)
NOBODY = Asked(jnp.zeros((C, 2 * H * K)), jnp.zeros(C, bool))


def clip(size=P, scale=1.0):
  obs = jnp.asarray(RNG.normal(size=(size, H, K)) * scale, jnp.float32)
  # k-center must not look at actions: these would decide everything.
  action = jnp.asarray(RNG.normal(size=(size, H, 1)) * 1e3, jnp.float32)
  return Clip(obs, action, jnp.zeros((size, H, 1)))


CANDIDATES = CandidatePairs(clip(), clip())
ASKED = Asked(
  pair_queries.pair_features(CandidatePairs(clip(C), clip(C))), np.arange(C) < 4
)


def r_hat(clip):
  """Member i reads observation i, each on another scale."""
  return jnp.moveaxis(clip.obs, -1, 0) * jnp.array([1.0, 0.3, 2.0])[:, None, None]


@functools.partial(jax.jit, static_argnums=(0, 1))
def choose(name, k, candidates, asked, wanted=None):
  return PAIR_STRATEGIES[name].choose(KEY, r_hat, candidates, k, asked, wanted)


def select(name, k, candidates=CANDIDATES, asked=ASKED):
  return np.asarray(choose(name, k, candidates, asked)).tolist()


def probabilities():
  """P(second better) of each member by a loop over pairs in float64, [K, P]."""
  first, second = (np.asarray(r_hat(c), np.float64) for c in CANDIDATES)
  table = np.zeros((K, P))
  for m in range(K):
    for p in range(P):
      table[m, p] = 1 / (1 + np.exp(first[m, p].sum() - second[m, p].sum()))
  return table


def entropies(p):
  return -p * np.log(p) - (1 - p) * np.log(1 - p)


def greedy(rows, k, centres):
  """k-center over the given candidates, one pair at a time."""
  sides = [np.asarray(c.obs, np.float64) for c in CANDIDATES]
  points = {i: np.concatenate([s[i].ravel() for s in sides]) for i in rows}
  centres, chosen = [np.asarray(c, np.float64) for c in centres], []
  for _ in range(k):
    gaps = {
      i: min(np.linalg.norm(x - c) for c in centres)
      for i, x in points.items()
      if i not in chosen
    }
    chosen.append(max(gaps, key=gaps.get))
    centres.append(points[chosen[-1]])
  return chosen


@pytest.mark.parametrize('name', list(PAIR_STRATEGIES))
def test_indices_are_distinct_and_of_one_signature(name):
  index = choose(name, P, CANDIDATES, ASKED)
  assert index.shape == (P,)
  assert index.dtype == jnp.int32
  assert len(set(np.asarray(index).tolist())) == P
  assert np.all((np.asarray(index) >= 0) & (np.asarray(index) < P))
  with pytest.raises(ValueError, match='41 queries cannot be chosen from 40'):
    PAIR_STRATEGIES[name].choose(KEY, r_hat, CANDIDATES, P + 1, ASKED)


def test_logits_are_for_the_second_segment():
  p = jax.nn.sigmoid(pair_queries.member_logits(r_hat, CANDIDATES))
  np.testing.assert_allclose(p, probabilities(), rtol=1e-4)


def test_disagreement_takes_the_widest_spread_of_probabilities():
  want = np.argsort(-probabilities().std(axis=0))[:7]
  assert select('disagreement', 7) == want.tolist()


def test_entropy_is_the_mean_of_the_members_not_of_their_mean():
  p = probabilities()
  want = np.argsort(-entropies(p).mean(axis=0))[:7]
  assert select('entropy', 7) == want.tolist()
  assert set(want) != set(np.argsort(-entropies(p.mean(axis=0)))[:7])


def test_entropy_keeps_its_digits_near_certainty():
  logits = np.array([[0.0, 3.0, -3.0, 40.0, -60.0]])
  q = 1 / (1 + np.exp(np.abs(logits[0])))
  want = -q * np.log(q) - (1 - q) * np.log1p(-q)
  got = pair_queries.entropy_score(jnp.asarray(logits, jnp.float32))
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_k_center_is_greedy_farthest_first_on_states():
  centres = ASKED.centres[:4]
  assert select('kcenter', 9) == greedy(range(P), 9, centres)
  p = probabilities()
  for name, score in (
    ('kcenter_disagreement', p.std(axis=0)),
    ('kcenter_entropy', entropies(p).mean(axis=0)),
  ):
    half = np.argsort(-score)[: P // 2]
    want = greedy(half, 9, centres)
    assert select(name, 9) == want
    assert want != greedy(range(P), 9, centres)
  # More than half are asked for: then that many are kept.
  assert set(select('kcenter_entropy', P)) == set(range(P))


@pytest.mark.parametrize('name', list(PAIR_STRATEGIES))
def test_a_smaller_session_chooses_as_if_it_were_the_largest(name):
  largest, each = 8, P // 8
  p, centres = probabilities(), ASKED.centres[:4]
  for wanted in (1, 3, largest):
    size = each * wanted
    half = {
      score: np.argsort(-values[:size])[: max(wanted, size // 2)]
      for score, values in (
        ('disagreement', p.std(axis=0)),
        ('entropy', entropies(p).mean(axis=0)),
      )
    }
    want = {
      'disagreement': half['disagreement'][:wanted].tolist(),
      'entropy': half['entropy'][:wanted].tolist(),
      'kcenter': greedy(range(size), wanted, centres),
      'kcenter_disagreement': greedy(half['disagreement'], wanted, centres),
      'kcenter_entropy': greedy(half['entropy'], wanted, centres),
    }
    # What lies behind its pool decides nothing, whatever is in it.
    for junk in (1.0, 1e3, np.nan):
      scale = np.where(np.arange(P) < size, 1.0, junk)[:, None, None]
      pairs = CandidatePairs(*(c.replace(obs=c.obs * scale) for c in CANDIDATES))
      chosen = np.asarray(choose(name, largest, pairs, ASKED, jnp.int32(wanted)))
      assert len(set(chosen.tolist())) == largest
      if name in want:
        assert chosen[:wanted].tolist() == want[name]
        assert (chosen[: min(largest, size)] < size).all()


def test_k_center_avoids_what_was_asked_but_not_what_was_skipped():
  first, second = (jax.tree.map(lambda x: x[:C], c) for c in CANDIDATES)
  no = np.array([False, True] + [False] * 4)
  store = preference_store.init_preferences(C + 3, H, K, 1, 1)
  append = jax.jit(preference_store.append)
  store = append(store, first, second, jnp.zeros(C), no, env_steps=0)
  asked = pair_queries.asked_so_far(store)
  order = select('kcenter', P, asked=asked)
  assert (
    order
    == greedy(range(P), P - 5, asked.centres[np.array([0, 2, 3, 4, 5])])
    + (order[P - 5 :])
  )
  assert set(order[P - 5 :]) == {0, 2, 3, 4, 5}


def test_k_center_starts_from_the_first_without_centres():
  order = select('kcenter', 9, asked=NOBODY)
  first = pair_queries.pair_features(CANDIDATES)[0]
  assert order == [0, *greedy(range(P), 8, [first])]


@pytest.mark.parametrize('name', ['disagreement', 'entropy', 'kcenter'])
def test_broken_candidates_come_last(name):
  # Far from the origin, where a broken pair must not count as lying.
  first, second = (c.replace(obs=c.obs + 50.0) for c in CANDIDATES)
  first = first.replace(obs=first.obs.at[3, 0, 0].set(jnp.nan))
  second = second.replace(obs=second.obs.at[8, 1, 1].set(jnp.inf))
  order = select(name, P, CandidatePairs(first, second), NOBODY)
  if name == 'disagreement':  # Infinitely better is certain, not broken.
    order.remove(8)
    assert order[-1] == 3
  else:
    assert set(order[-2:]) == {3, 8}


def test_uniform_is_uniform():
  keys = jax.random.split(KEY, 2000)
  draw = jax.jit(
    jax.vmap(
      lambda k: PAIR_STRATEGIES['uniform'].choose(k, r_hat, CANDIDATES, 4, NOBODY)
    )
  )
  counts = np.bincount(np.asarray(draw(keys)).ravel(), minlength=P)
  want = 2000 * 4 / P
  assert np.sum((counts - want) ** 2 / want) < P + 4 * np.sqrt(2 * P)


def test_seeds_are_an_axis():
  scales = jnp.array([1.0, -2.0])

  @jax.jit
  def run(scale):
    candidates = jax.tree.map(lambda x: x * scale + scale**2, CANDIDATES)
    return PAIR_STRATEGIES['kcenter_entropy'].choose(KEY, r_hat, candidates, 7, ASKED)

  both = jax.jit(jax.vmap(run))(scales)
  for i in range(2):
    np.testing.assert_array_equal(both[i], run(scales[i]))


def test_pools():
  for name, strategy in PAIR_STRATEGIES.items():
    plain = name in ('uniform', 'near_on_policy')
    assert strategy.pool_size(10, 10) == (10 if plain else 100)
    assert strategy.recent_only == (name == 'near_on_policy')
