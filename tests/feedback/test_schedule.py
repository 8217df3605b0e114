import pytest

from rlfb_jax.feedback.schedule import (
  PRESETS,
  ScheduleOptions,
  label_schedule,
  labels_due,
  pretrain_chunks,
)


def published(name, num_envs):
  return label_schedule(
    ScheduleOptions(**PRESETS[name]),
    total_env_steps=4_000_000,
    chunk_env_steps=num_envs * 500,
    episode_env_steps=num_envs * 1000,
  )


@pytest.mark.parametrize(
  ('name', 'num_envs', 'size', 'later'),
  [('walker', 32, 100, 'disagreement'), ('quadruped', 16, 200, 'uniform')],
)
def test_published_sessions_fire_every_32000_steps(name, num_envs, size, later):
  sessions = published(name, num_envs)
  assert [s.env_steps for s in sessions] == [32_000 * i for i in range(1, 11)]
  assert [s.num_labels for s in sessions] == [size] * 10
  assert [s.asked for s in sessions] == [size * i for i in range(1, 11)]
  assert [s.query for s in sessions] == ['uniform'] + [later] * 9


def test_last_session_is_shrunk_to_the_budget():
  options = ScheduleOptions(label_budget=250, labels_per_session=100)
  sessions = label_schedule(
    options, total_env_steps=10**6, chunk_env_steps=16_000, episode_env_steps=32_000
  )
  assert [s.num_labels for s in sessions] == [100, 100, 50]
  assert labels_due(sessions, 96_000) == 50
  assert labels_due(sessions, 80_000) == 0


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
  assert pretrain_chunks(options, 300) == 4
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


def test_presets_are_valid_options():
  for preset in PRESETS.values():
    ScheduleOptions(**preset)
