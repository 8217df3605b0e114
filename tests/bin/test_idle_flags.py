"""Flags that do nothing are named; nothing is said of those that do something."""

import pytest

from rlfb_jax.bin import launch, train
from rlfb_jax.bin.idle_flags import idle_flags
from tests.bin.test_train import TINY


@pytest.mark.parametrize(
  ('argv', 'sentences'),
  [
    (
      '--method=pebble --feedback_label_budget=500 --ppo_num_envs 64 --kl_beta=3',
      [
        '--ppo_num_envs does nothing with --method=pebble, whose agent is sac; did you'
        ' mean --replay_num_envs?',
        '--feedback_label_budget does nothing with --method=pebble, which asks for'
        ' pairs; did you mean --pairs_label_budget?',
        '--kl_beta does nothing with --method=pebble, which does not include kl; did'
        ' you mean --add=kl?',
      ],
    ),
    (
      '--method=rbrl --agent=ddpg --sac_hidden_size=64 --teacher_beta=1',
      [
        '--sac_hidden_size does nothing with --method=rbrl --agent=ddpg, whose agent is'
        ' ddpg; did you mean --ddpg_hidden_size?',
        '--teacher_beta does nothing with --method=rbrl --agent=ddpg, which asks for'
        ' ratings.',
      ],
    ),
    (
      '--method=ppo --reward_ensemble_size=5',
      [
        '--reward_ensemble_size does nothing with --method=ppo, which learns from the'
        ' true reward.'
      ],
    ),
    (
      '--method=pebble --reward_sharpness=9 --reward_pair_weight=2'
      ' --pretrain_num_epochs=3 --updates_per_step=0.5',
      [
        '--reward_sharpness does nothing with --method=pebble, which asks for pairs.',
        '--pretrain_num_epochs does nothing with --method=pebble, whose agent is sac.',
      ],
    ),
    (
      '--method=rbrl --reward_sharpness=9 --reward_pair_weight=2'
      ' --pretrain_num_epochs=3 --updates_per_step=0.5 --reward_max_passes=3',
      [
        '--updates_per_step does nothing with --method=rbrl, whose agent is ppo.',
        '--reward_pair_weight does nothing with --method=rbrl, which asks for ratings.',
      ],
    ),
    (
      '--method=surf --reward_max_passes=3',
      [
        '--reward_max_passes does nothing with --method=surf, whose reward takes the'
        ' steps of --surf_reward_update.'
      ],
    ),
    ('--method=mrn --ask=both --add=kl --kl_beta=3 --feedback_label_budget=5', []),
    ('--method=rbrl --agent=sac --pairs_archive_episodes=50', []),
    # What files say is not what somebody wrote.
    ('--preset=rbrl_kl --method=ppo', []),
  ],
)
def test_each_is_one_sentence(argv, sentences):
  argv = argv.split()
  assert idle_flags(argv, launch.parse(argv)) == sentences


def test_training_says_them_and_goes_on(tmp_path, capsys):
  train.main([*TINY, f'--run_dir={tmp_path / "run"}', '--kl_beta=3'])
  said = capsys.readouterr()
  assert 'rlfb-train: --kl_beta does nothing with --method=ppo' in said.err
  assert '100%  64 steps' in said.err
