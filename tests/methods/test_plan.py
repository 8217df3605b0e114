"""What follows from a configuration before anything is built."""

import pytest

from rlfb_jax.bin import launch
from rlfb_jax.methods import plan


@pytest.mark.parametrize(
  ('argv', 'largest', 'flag'),
  [
    (['--method=sac'], 'replay', '--replay_capacity'),
    (['--method=rbrl'], 'archive', '--feedback_session_interval'),
    (['--method=pref_ppo'], 'archive', '--pairs_session_interval'),
    (['--method=mrn'], 'archive', '--pairs_archive_episodes'),
    (['--method=rbrl'], 'answers', '--feedback_label_budget'),
    (['--method=pebble'], 'answers', '--pairs_label_budget'),
    (['--method=surf'], 'answers', '--surf_unlabelled_per_label'),
  ],
)
def test_a_run_too_large_is_told_what_would_make_it_smaller(argv, largest, flag):
  config = launch.parse(argv)
  needed = plan.Memory(replay=1, archive=1, answers=1)._replace(**{largest: 2**34})
  with pytest.raises(ValueError, match=f'lower --num_seeds or {flag}') as error:
    plan.refuse_beyond(needed, 2**30, config)
  assert '16.0 GiB' in str(error.value)
  plan.refuse_beyond(needed, 2**35, config)
  plan.refuse_beyond(needed, None, config)
