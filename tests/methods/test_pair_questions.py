"""Pairs from an archive in which every number tells where it comes from."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlfb_jax.feedback import archive as archives
from rlfb_jax.feedback.clips import Clip
from rlfb_jax.feedback.pair_pool import draw_pairs
from rlfb_jax.feedback.pair_queries import (
  PAIR_STRATEGIES,
  disagreement_score,
  entropy_score,
  member_logits,
)
from rlfb_jax.feedback.schedule import PairOptions, PlannedSession
from rlfb_jax.feedback.scripted_teacher import TeacherOptions
from rlfb_jax.methods.algorithm import PerKind
from rlfb_jax.methods.feedback import ArchiveShape, make_feedback
from rlfb_jax.methods.pair_questions import make_pair_questions
from rlfb_jax.methods.questions import Questions
from rlfb_jax.reward.model import make_reward_model
from rlfb_jax.reward.options import RewardOptions

N, T, L, H, MARGIN, K = 2, 10, 60, 3, 2, 6
STORED = H + 2 * MARGIN
SESSIONS = (
  PlannedSession(100, 4, 4, 'uniform'),
  PlannedSession(200, K, 4 + K, 'uniform'),
)
OPTIONS = PairOptions(segment_steps=H, large_batch=5, recent_episodes=3)
KEY = jax.random.key(0)


def questions(options=OPTIONS, teacher=TeacherOptions(), **kwargs):
  return make_pair_questions(teacher, options, SESSIONS, (2, 1, 1), N, T, **kwargs)


@functools.cache
def filled():
  """Every field carries 100 env + step; episodes of T steps end together."""
  archive = archives.init_archive(L, T, N, 2, 1, 1)
  done = jnp.zeros((T, N), bool).at[-1].set(True)
  for i in range(L // T):
    ids = 100.0 * jnp.arange(N) + jnp.arange(i * T, (i + 1) * T)[:, None]
    field = ids[..., None]
    archive = archives.append(
      archive, archives.ArchivedSteps(field * jnp.ones(2), field, field, ids, done)
    )
  return archive


def members(clip):
  """Two that disagree, [2, B, H]."""
  value = clip.obs[..., 0]
  return jnp.stack([jnp.sin(value), jnp.cos(3.0 * value)])


def propose(asking, strategy='uniform', archive=None, key=KEY, wanted=K):
  archive = filled() if archive is None else archive
  return asking.propose(
    archive, members, asking.init(), key, strategy, jnp.int32(wanted)
  )


def steps_of(clip):
  """Where the steps of a clip come from, [B, H]."""
  return np.asarray(clip.obs[..., 0]) % 100


def margins_become(rewards, value):
  inside = slice(MARGIN, MARGIN + H)
  return jnp.full_like(rewards, value).at[:, inside].set(rewards[:, inside])


@pytest.mark.parametrize(
  'teacher', [{}, {'gamma': 0.5}, {'equal': 0.1, 'skip': 0.5}], ids=str
)
def test_the_teacher_judges_the_middle_only(teacher):
  asking = questions(teacher=TeacherOptions(**teacher), margin=MARGIN)
  queries = propose(asking)
  answers = asking.teach(queries, KEY)
  shown = queries.shown
  middles = [
    np.asarray(rewards)[:, MARGIN : MARGIN + H].sum(axis=1)
    for rewards in (shown.first_rewards, shown.second_rewards)
  ]
  np.testing.assert_allclose(answers.returns, np.stack(middles, axis=1), rtol=1e-6)
  for first, second in ((1e6, -1e6), (-1e6, 1e6), (jnp.nan, jnp.nan)):
    poisoned = shown._replace(
      first_rewards=margins_become(shown.first_rewards, first),
      second_rewards=margins_become(shown.second_rewards, second),
    )
    again = asking.teach(queries._replace(shown=poisoned), KEY)
    jax.tree.map(np.testing.assert_array_equal, again, answers)
  turned = shown._replace(
    first_rewards=shown.second_rewards, second_rewards=shown.first_rewards
  )
  other = asking.teach(queries._replace(shown=turned), KEY)
  assert (np.asarray(other.label) != np.asarray(answers.label)).any()


def test_thresholds_are_of_clips_as_long_as_those_judged():
  archive = filled()
  even = dataclasses.replace(
    archive.steps, env_reward=jnp.full_like(archive.steps.env_reward, 2.0)
  )
  archive = dataclasses.replace(archive, steps=even)
  queries = propose(questions(margin=MARGIN), archive=archive)
  assert float(queries.mean_segment_return) == pytest.approx(2.0 * H)


@pytest.mark.parametrize('margin', [0, MARGIN])
@pytest.mark.parametrize('strategy', list(PAIR_STRATEGIES))
def test_every_strategy_proposes_as_many_pairs_as_the_largest_session(strategy, margin):
  queries = propose(questions(margin=margin), strategy)
  shown = queries.shown
  assert np.asarray(shown.valid).tolist() == [True] * K
  assert bool(queries.opening)
  for clip, rewards in zip(
    shown.candidates, (shown.first_rewards, shown.second_rewards), strict=True
  ):
    assert rewards.shape == (K, H + 2 * margin)
    np.testing.assert_array_equal(clip.obs[..., 0], rewards)
    steps = steps_of(clip)
    np.testing.assert_array_equal(steps, steps[:, :1] + np.arange(H + 2 * margin))
    # Within one episode.
    np.testing.assert_array_equal(steps[:, 0] // T, steps[:, -1] // T)


def test_near_on_policy_asks_about_recent_episodes_only():
  # Three of two environments reach into the last two of each.
  asking = questions()
  seen = {}
  for strategy in ('near_on_policy', 'uniform', 'disagreement'):

    def ask(key, strategy=strategy):
      return propose(asking, strategy, key=key).shown.candidates

    pairs = jax.jit(jax.vmap(ask))(jax.random.split(KEY, 30))
    seen[strategy] = np.stack([steps_of(clip) for clip in pairs])
  assert set((seen['near_on_policy'] // T).ravel()) == {4, 5}
  for strategy in ('uniform', 'disagreement'):
    assert set((seen[strategy] // T).ravel()) == set(range(L // T))


@pytest.mark.parametrize('strategy', ['disagreement', 'entropy'])
def test_what_is_asked_about_is_chosen_by_what_the_members_say(strategy):
  score = {'disagreement': disagreement_score, 'entropy': entropy_score}[strategy]

  def mean_score(name):
    pairs = propose(questions(), name).shown.candidates
    return float(jnp.mean(score(member_logits(members, pairs))))

  assert mean_score(strategy) > 1.2 * mean_score('uniform')


def test_a_smaller_session_asks_about_the_best_of_its_own_pool():
  asking, key = questions(), jax.random.key(2)
  pool = draw_pairs(
    jax.random.split(key, 3)[0], filled(), OPTIONS.large_batch * K, H
  ).candidates
  scores = np.asarray(disagreement_score(member_logits(members, pool)))
  for wanted in (1, 4, K):
    size = OPTIONS.large_batch * wanted
    want = np.sort(scores[:size])[::-1][:wanted]
    pairs = propose(asking, 'disagreement', key=key, wanted=wanted).shown.candidates
    got = disagreement_score(member_logits(members, pairs))
    assert got.shape == (K,)
    np.testing.assert_allclose(got[:wanted], want, rtol=1e-5)
  assert scores.max() > scores[: OPTIONS.large_batch].max()


@pytest.mark.parametrize('kind', ['ratings', 'pairs'])
def test_people_are_proposed_to_as_many_as_are_due(kind):
  def propose(archive, members, store, key, strategy, wanted):
    assert strategy == 'uniform'
    return wanted

  asking = Questions(
    init=lambda: None,
    propose=propose,
    teach=None,
    append=None,
    sessions=SESSIONS,
    memory_bytes=0,
  )
  each = {'ratings': None, 'pairs': None}
  feedback = make_feedback(
    ArchiveShape(L, T, N),
    (2, 1, 1),
    PerKind(**each | {kind: asking}),
    make_reward_model(RewardOptions(hidden_size=4, hidden_layers=1), 2, 1),
    fit=None,
    combine=None,
    num_members=3,
    segment_steps=H,
  )
  state = feedback.init(KEY)
  strategies = PerKind(**{name: 'uniform' * (name == kind) for name in each})
  for session in SESSIONS:
    wanted = feedback.request(session.env_steps).wanted
    asked = feedback.propose(state, KEY, strategies, wanted)
    assert int(getattr(asked, kind)) == session.num_labels


@pytest.mark.parametrize('wanted', [K, 2])
def test_unlabelled_pairs_are_drawn_and_kept_beside_those_asked(wanted):
  per_label = 3
  asking = questions(margin=MARGIN, unlabelled_per_label=per_label)
  queries = propose(asking)
  drawn = queries.unlabelled.candidates
  assert drawn.size == per_label * K
  for clip in drawn:
    steps = steps_of(clip)
    np.testing.assert_array_equal(steps, steps[:, :1] + np.arange(STORED))
    # No copies of each other.
    assert len(set(np.asarray(clip.obs[:, 0, 0]).tolist())) > per_label * K // 2
  answers = asking.teach(queries, KEY)
  memory, _ = asking.append(
    asking.init(), queries, answers, jnp.int32(wanted), jnp.int32(100)
  )
  assert int(memory.asked.count) == wanted
  kept = per_label * wanted
  assert int(memory.unlabelled.count) == kept
  for held, clip in zip(
    (memory.unlabelled.first, memory.unlabelled.second), drawn, strict=True
  ):
    assert held.obs.shape[0] == per_label * SESSIONS[-1].asked
    np.testing.assert_array_equal(held.obs[:kept], clip.obs[:kept])


def test_unlabelled_pairs_are_others_than_those_asked_about():
  queries = propose(questions(unlabelled_per_label=1))
  asked, others = (
    set(zip(*(np.asarray(clip.obs[:, 0, 0]).tolist() for clip in pair), strict=True))
    for pair in (queries.shown.candidates, queries.unlabelled.candidates)
  )
  assert not asked & others


def test_without_a_use_for_them_no_unlabelled_pairs_are_drawn():
  asking = questions(margin=MARGIN)
  queries = propose(asking)
  assert queries.unlabelled is None
  answers = asking.teach(queries, KEY)
  memory, metrics = asking.append(
    asking.init(), queries, answers, jnp.int32(K), jnp.int32(100)
  )
  assert memory.unlabelled is None
  assert int(metrics['pairs_asked']) == K
  again = asking.propose(filled(), members, memory, KEY, 'uniform', jnp.int32(K))
  assert not bool(again.opening)


def absorbed(asking, queries, wanted=2, memory=None):
  answers = asking.teach(queries, KEY)
  memory = asking.init() if memory is None else memory
  return asking.append(memory, queries, answers, jnp.int32(wanted), jnp.int32(0))


def test_pairs_from_an_archive_without_segments_are_skipped_and_not_kept():
  asking = questions(margin=MARGIN, unlabelled_per_label=2)
  queries = propose(asking, archive=archives.init_archive(L, T, N, 2, 1, 1))
  memory, metrics = absorbed(asking, queries)
  assert int(metrics['pairs_skipped']) == int(metrics['pairs_asked']) == 2
  assert np.asarray(memory.asked.skipped[:2]).all()
  assert int(memory.unlabelled.count) == 0
  # All of its episodes are shorter than a clip with its margins.
  short = filled()
  done = jnp.zeros_like(short.steps.done).at[:: STORED - 1].set(True)
  short = dataclasses.replace(short, steps=dataclasses.replace(short.steps, done=done))
  memory, _ = absorbed(asking, propose(asking, archive=short))
  assert int(memory.unlabelled.count) == 0


def test_every_skip_is_counted_once_whatever_it_was_for():
  asking = questions()
  queries = propose(asking)
  pose = queries.shown.candidates.first.pose.at[1].set(jnp.inf)
  first = dataclasses.replace(queries.shown.candidates.first, pose=pose)
  candidates = queries.shown.candidates._replace(first=first)
  broken = queries._replace(shown=queries.shown._replace(candidates=candidates))
  memory, metrics = absorbed(asking, broken)
  assert int(metrics['pairs_skipped']) == 1
  assert metrics['answer_counts'].tolist()[2:] == [0, 1]
  _, metrics = absorbed(asking, queries, memory=memory)
  assert int(metrics['pairs_skipped']) == 0
  assert metrics['answer_counts'].tolist()[2:] == [0, 1]


def test_answers_so_far_are_counted_by_kind():
  asking, shown = questions(), jnp.int32(3)
  queries = propose(asking)
  returns = np.stack(
    [queries.shown.first_rewards.sum(axis=1), queries.shown.second_rewards.sum(axis=1)]
  )
  second = int((returns[1] > returns[0])[:3].sum())
  memory, metrics = asking.append(
    asking.init(), queries, asking.teach(queries, KEY), shown, jnp.int32(0)
  )
  assert metrics['answer_counts'].dtype == jnp.int32
  assert metrics['answer_counts'].tolist() == [3 - second, second, 0, 0]
  # Of all sessions, where the next teacher cannot tell any apart.
  careless = questions(teacher=TeacherOptions(equal=1e6))
  answers = careless.teach(queries, KEY)
  _, metrics = careless.append(memory, queries, answers, jnp.int32(2), jnp.int32(0))
  assert metrics['answer_counts'].tolist() == [3 - second, second, 2, 0]


def test_strategies_see_what_members_say_as_it_was_trained():
  def propose(archive, members, store, key, strategy, wanted):
    return members(Clip(jnp.ones((2, H, 2)), jnp.ones((2, H, 1)), None))

  asking = Questions(
    init=lambda: None,
    propose=propose,
    teach=None,
    append=None,
    sessions=SESSIONS,
    memory_bytes=0,
  )
  model = make_reward_model(RewardOptions(hidden_size=4, hidden_layers=1), 2, 1)
  feedback = make_feedback(
    ArchiveShape(L, T, N),
    (2, 1, 1),
    PerKind(None, asking),
    model,
    fit=None,
    combine=None,
    num_members=3,
    segment_steps=H,
  )
  state = feedback.init(KEY)
  scaled = dataclasses.replace(
    state.reward_model, shift=jnp.full(3, 2.0), scale=jnp.array([0.1, 1.0, 10.0])
  )
  scaled = state.replace(reward_model=scaled)
  said, same = (
    feedback.propose(s, KEY, PerKind('', 'uniform'), PerKind(0, K)).pairs
    for s in (state, scaled)
  )
  np.testing.assert_array_equal(said, same)
  rewards = model.r_hat_members(
    scaled.reward_model, jnp.ones((2, H, 2)), jnp.ones((2, H, 1))
  )
  want = (np.asarray(said) - 2.0) / np.array([0.1, 1.0, 10.0])[:, None, None]
  np.testing.assert_allclose(rewards, want, rtol=1e-5)
