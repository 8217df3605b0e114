"""Every packaged preset is a configuration that runs, and says what it claims."""

import pytest

from rlfb_jax import methods
from rlfb_jax.bin import flags, resume
from rlfb_jax.repulsion import options as repulsion_options
from rlfb_jax.training.run import make_environment


@pytest.mark.parametrize('name', flags.presets())
def test_every_preset_passes_all_checks(name):
  config = resume.parse([f'--preset={name}'])
  methods.check(config, make_environment(config))


@pytest.mark.parametrize('name', sorted(repulsion_options.PRESETS))
def test_published_variants_are_those_of_the_code(name):
  config = resume.parse([f'--preset={name}'])
  assert config.kl == repulsion_options.preset(name)
  assert config.run.method == 'rbrl_kl'


@pytest.mark.parametrize('method', ['ppo', 'rbrl', 'rbrl_kl'])
def test_a_methods_preset_changes_nothing_else(method):
  assert resume.parse([f'--preset={method}']) == resume.parse([f'--method={method}'])


def test_controls_differ_from_rbrl_kl_in_the_repulsion_alone():
  standard = resume.parse(['--preset=rbrl_kl'])
  for name in ('logged_only', 'shuffled_labels', 'uniform_weights', 'reversed_weights'):
    control = resume.parse([f'--preset={name}'])
    assert control.kl != standard.kl
    assert (control.run, control.ppo, control.reward, control.feedback) == (
      standard.run,
      standard.ppo,
      standard.reward,
      standard.feedback,
    )
