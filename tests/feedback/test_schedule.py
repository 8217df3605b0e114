import pytest

from rlfb_jax.feedback.pair_queries import PAIR_STRATEGIES
from rlfb_jax.feedback.schedule import (
  PairOptions,
  ScheduleOptions,
  label_schedule,
)


def test_last_session_is_shrunk_to_the_budget():
  options = ScheduleOptions(label_budget=250, labels_per_session=100)
  sessions = label_schedule(
    options, total_env_steps=10**6, chunk_env_steps=16_000, episode_env_steps=32_000
  )
  assert [s.num_labels for s in sessions] == [100, 100, 50]


def test_steps_round_up_to_whole_chunks():
  options = ScheduleOptions(
    label_budget=40,
    labels_per_session=10,
    session_interval=700,
    pretrain_steps=1000,
    at_episode_end=False,
  )
  sessions = label_schedule(
    options, total_env_steps=10**6, chunk_env_steps=300, episode_env_steps=5000
  )
  assert [s.env_steps for s in sessions] == [1200, 2100, 3000, 3900]
  # Chunks that do not end with an episode: the first whole one after it.
  options = ScheduleOptions(label_budget=200, pretrain_steps=0, session_interval=1)
  sessions = label_schedule(
    options, total_env_steps=10**6, chunk_env_steps=300, episode_env_steps=1000
  )
  assert [s.env_steps for s in sessions] == [1200, 2100]


def test_run_that_ends_early():
  kwargs = {'chunk_env_steps': 16_000, 'episode_env_steps': 32_000}
  sessions = label_schedule(ScheduleOptions(), total_env_steps=64_000, **kwargs)
  assert [s.env_steps for s in sessions] == [32_000]
  with pytest.raises(ValueError, match=r'ends before the first labels.*try 48000'):
    label_schedule(ScheduleOptions(), total_env_steps=32_000, **kwargs)


MILLION = {
  'total_env_steps': 10**6,
  'chunk_env_steps': 1000,
  'episode_env_steps': 1000,
}


def test_pebble_asks_on_walker_at_the_published_steps():
  sessions = label_schedule(PairOptions(), **MILLION)
  assert [s.env_steps for s in sessions] == list(range(10_000, 190_001, 20_000))
  assert [s.num_labels for s in sessions] == [10] * 10
  assert sessions[-1].asked == 100
  assert [s.query for s in sessions] == ['uniform'] + ['disagreement'] * 9


def test_nominal_budget_of_meta_world_does_not_fit():
  options = PairOptions(
    label_budget=10_000, labels_per_session=50, session_interval=5000
  )
  sessions = label_schedule(options, **MILLION)
  assert (len(sessions), sessions[-1].asked) == (198, 9900)


@pytest.mark.parametrize(
  ('kind', 'sizes'),
  [
    # 10 (T - t) / T and 10 T / (T - t + 1) at t / T = 0.1, 0.3, 0.5, 0.7, 0.9, rounded
    # down.
    ('constant', [10, 10, 10, 10, 10]),
    ('front', [9, 7, 5, 3, 1]),
    ('back', [11, 14, 19, 33, 99]),
  ],
)
def test_session_sizes(kind, sizes):
  options = PairOptions(
    label_budget=1000,
    session_size=kind,
    pretrain_steps=100_000,
    session_interval=200_000,
  )
  sessions = label_schedule(options, **MILLION)
  assert [s.env_steps for s in sessions] == list(range(100_000, 900_001, 200_000))
  assert [s.num_labels for s in sessions] == sizes
  assert sessions[-1].asked == sum(sizes)


def test_growing_sessions_stop_at_the_budget_and_shrinking_ones_at_one_label():
  options = PairOptions(label_budget=40, session_size='back', session_interval=200_000)
  sessions = label_schedule(options, **MILLION)
  # 10.1, 12.6, 16.9 and then the rest.
  assert [s.num_labels for s in sessions] == [10, 12, 16, 2]
  options = PairOptions(
    labels_per_session=2, session_size='front', session_interval=400_000
  )
  sessions = label_schedule(options, **MILLION)
  assert [s.num_labels for s in sessions] == [1, 1, 1]


def test_each_kind_of_question_has_its_own_strategies():
  for query in PAIR_STRATEGIES:
    PairOptions(query=query)
  with pytest.raises(ValueError, match='query=disagreement_raw is not one of'):
    PairOptions(query='disagreement_raw')
  with pytest.raises(ValueError, match='query=kcenter is not one of'):
    ScheduleOptions(query='kcenter')
