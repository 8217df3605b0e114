import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.feedback.scripted import myopic_return
from rlfb_jax.feedback.scripted_teacher import TeacherOptions, prefer

KEY = jax.random.key(0)
ask = jax.jit(prefer, static_argnames='options')


def rewards(returns, steps=4):
  """Segments whose reward is all in the first step."""
  returns = jnp.asarray(returns, jnp.float32)
  return jnp.zeros((returns.shape[0], steps)).at[:, 0].set(returns)


def within(fraction, p, size):
  return abs(fraction - p) < 4 * np.sqrt(p * (1 - p) / size)


def test_oracle_prefers_the_larger_return_and_gives_ties_to_the_first():
  first, second = rewards([1.0, 3.0, 2.0, -5.0]), rewards([2.0, 1.0, 2.0, -6.0])
  out = ask(KEY, first, second, TeacherOptions(), 10.0)
  np.testing.assert_array_equal(out.label, [1.0, 0.0, 0.0, 0.0])
  assert out.label.dtype == jnp.float32
  assert not np.any(np.asarray(out.skipped))
  np.testing.assert_array_equal(out.returns, [[1, 2], [3, 1], [2, 2], [-5, -6]])
  other = ask(jax.random.key(7), first, second, TeacherOptions(), 10.0)
  np.testing.assert_array_equal(out.label, other.label)


def test_skip_needs_one_plain_return_above_the_threshold():
  first, second = rewards([1.0, 2.0, 3.0, 0.0, 0.0]), rewards([2.0, 1.0, 0.0, 3.0, 0.0])
  out = ask(KEY, first, second, TeacherOptions(skip=0.1), 20.0)
  np.testing.assert_array_equal(out.skipped, [True, True, False, False, True])
  # The myopic teacher skips by the same plain sums: 0.1^3 of 3 would not do.
  myopic = ask(KEY, first, second, TeacherOptions(skip=0.1, gamma=0.1), 20.0)
  np.testing.assert_array_equal(myopic.skipped, out.skipped)
  # Nothing is skipped where the threshold is not positive.
  for mean in (0.0, -20.0):
    out = ask(KEY, first - 9, second - 9, TeacherOptions(skip=0.1), mean)
    assert not np.any(np.asarray(out.skipped))


def test_equal_compares_plain_returns_strictly():
  first, second = rewards([5.0, 5.0, 5.0, 5.0]), rewards([6.0, 7.0, 3.5, 2.0])
  out = ask(KEY, first, second, TeacherOptions(equal=0.1), 20.0)
  np.testing.assert_array_equal(out.label, [0.5, 1.0, 0.5, 0.0])
  # Seen myopically 5 and 2 are nearly alike; the plain sums decide.
  myopic = ask(KEY, first, second, TeacherOptions(equal=0.1, gamma=0.1), 20.0)
  np.testing.assert_array_equal(myopic.label, out.label)


def test_equal_overrides_mistake_and_chance():
  first, second = rewards(np.full(64, 5.0)), rewards(np.tile([5.5, 50.0], 32))
  for imperfect in ({'mistake': 1.0}, {'beta': 1e-3}):
    options = TeacherOptions(equal=0.1, **imperfect)
    label = np.asarray(ask(KEY, first, second, options, 20.0).label)
    np.testing.assert_array_equal(label[::2], 0.5)
    assert not np.any(label[1::2] == 0.5)


def test_myopia_weighs_late_steps():
  late = np.zeros((2, 50))
  late[0, 0] = late[1, -1] = 1.0
  early, recent = myopic_return(jnp.asarray(late, jnp.float32), 0.9)
  assert float(recent) == 1.0
  np.testing.assert_allclose(early, 0.9**49, rtol=1e-5)
  seen = np.random.default_rng(0).uniform(size=(5, 50))
  want = [sum(0.9 ** (49 - j) * row[j] for j in range(50)) for row in seen]
  got = myopic_return(jnp.asarray(seen, jnp.float32), 0.9)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  # More in all, but long ago: only the oracle prefers it.
  pair = jnp.asarray(late[None, 1]), 3 * jnp.asarray(late[None, 0])
  assert ask(KEY, *pair, TeacherOptions()).label[0] == 1.0
  assert ask(KEY, *pair, TeacherOptions(gamma=0.9)).label[0] == 0.0


def test_rationality_is_the_logistic_of_the_seen_returns():
  size = 20_000
  first, second = rewards(np.full(size, 1.0)), rewards(np.full(size, 3.0))
  label = ask(KEY, first, second, TeacherOptions(beta=0.5)).label
  assert set(np.unique(label)) == {0.0, 1.0}
  assert within(float(label.mean()), 1 / (1 + np.exp(-0.5 * 2.0)), size)
  # Myopia comes first: rewards of the first of four steps weigh 0.5^3.
  label = ask(KEY, first, second, TeacherOptions(beta=4.0, gamma=0.5)).label
  assert within(float(label.mean()), 1 / (1 + np.exp(-4.0 * 2.0 / 8)), size)
  # A tie is a coin.
  label = ask(KEY, first, first, TeacherOptions(beta=0.5)).label
  assert within(float(label.mean()), 0.5, size)


def test_mistakes_turn_answers_round_at_their_rate_independently_of_chance():
  size = 20_000
  truth = np.tile([0.0, 1.0], size // 2)
  first, second = rewards(1 - truth), rewards(truth)
  label = np.asarray(ask(KEY, first, second, TeacherOptions(mistake=0.3)).label)
  wrong = label != truth
  for side in (0, 1):
    assert within(wrong[side::2].mean(), 0.3, size // 2)
  # p = sigmoid(1), then turned round in 3 of 10 cases.
  p = 1 / (1 + np.exp(-1.0))
  both = TeacherOptions(beta=1.0, mistake=0.3)
  label = np.asarray(ask(KEY, first, second, both).label)[1::2]
  assert within(label.mean(), 0.7 * p + 0.3 * (1 - p), size // 2)


@pytest.mark.parametrize(('square', 'later'), [(False, 2.0), (True, 0.2)])
def test_thresholds_are_squared_after_the_first_session_for_parity_only(square, later):
  gaps = jnp.array([0.1, 0.3, 1.9, 2.1])
  first, second = rewards(jnp.zeros(4)), rewards(gaps)
  options = TeacherOptions(skip=0.1, equal=0.1, square_thresholds=square)
  for is_first, least in ((True, 2.0), (False, later)):
    out = ask(KEY, first, second, options, 20.0, jnp.asarray(is_first))
    np.testing.assert_array_equal(out.label == 0.5, gaps < least)
    np.testing.assert_array_equal(out.skipped, gaps < least)


def test_seeds_are_an_axis():
  options = TeacherOptions(beta=1.0, mistake=0.1, skip=0.1, equal=0.1)
  drawn = jax.jit(lambda key: jax.random.uniform(key, (2, 2, 30, 4)))(KEY)
  keys, means = jax.random.split(KEY, 2), jnp.array([2.0, 3.0])
  seeds = jax.jit(jax.vmap(lambda k, r, m: prefer(k, r[0], r[1], options, m)))
  both = seeds(keys, drawn, means)
  for i in range(2):
    alone = ask(keys[i], *drawn[i], options, means[i])
    np.testing.assert_array_equal(both.label[i], alone.label)
    np.testing.assert_array_equal(both.skipped[i], alone.skipped)


def test_refusals():
  with pytest.raises(ValueError, match=r'beta=-2\.0 must be at least -1'):
    TeacherOptions(beta=-2.0)
  with pytest.raises(ValueError, match=r'gamma=0\.0 must be greater than 0'):
    TeacherOptions(gamma=0.0)
  with pytest.raises(ValueError, match=r'one shape .* \(2, 4\) and \(3, 4\)'):
    prefer(KEY, jnp.zeros((2, 4)), jnp.zeros((3, 4)), TeacherOptions())
