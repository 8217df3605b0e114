"""What the benchmark of off-policy updates counts, and that it runs at all."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import measure
import numpy as np
import products
import pytest
import taking_turns
import update_products
import update_report
import update_workloads
import updates
from products import Pass

from rlfb_jax.agents.off_policy import Transitions, update


def test_flops_by_hand():
  # Layers 5x7 and 7x2 on 3 rows: 35 and 14 multiplications a row.
  assert products.count_flops([Pass((5, 7, 2))], 3) == 2 * 3 * (35 + 14)
  trained = Pass((5, 7, 2), weights=True)
  assert products.count_flops([trained], 3) == 2 * 3 * (2 * 35 + 3 * 14)
  # Backwards into 2 of 5 inputs: 7x2 back through the last layer, 2x7 in the first.
  through = Pass((5, 7, 2), inputs=2)
  assert products.count_flops([through], 3) == 2 * 3 * (35 + 2 * 14 + 14)


def test_an_update_of_sac_by_hand():
  # Actor 3-4-4 (mean and spread of 2), critics 5-4-1, a row.
  actor, critic = 3 * 4 + 4 * 4, 5 * 4 + 4
  targets = actor + 2 * critic
  critics = 2 * (2 * 5 * 4 + 3 * 4)
  through = 2 * (critic + 4 + 2 * 4)
  trained = 2 * 3 * 4 + 3 * 4 * 4
  wanted = 2 * 10 * (targets + critics + through + trained)
  passes = update_products.sac_update(3, 2, [4])
  assert products.count_flops(passes, 10) == wanted


@pytest.mark.parametrize('one', [Pass((5, 7, 7, 2)), Pass((5, 7, 7, 2), inputs=3)])
def test_a_pass_is_the_gradient_of_a_network_without_activations(one):
  keys = jax.random.split(jax.random.key(0), 4)
  shapes = (5, 7), (7, 7), (7, 2)
  weights = [jax.random.normal(k, s) for k, s in zip(keys[:3], shapes, strict=True)]
  inputs = jax.random.normal(keys[3], (11, 5))

  def outputs(x):
    return x @ weights[0] @ weights[1] @ weights[2]

  wanted = outputs(inputs)
  if one.inputs:
    grad = jax.grad(lambda x: 0.5 * jnp.sum(outputs(x) ** 2))(inputs)
    wanted = grad[:, -one.inputs :]
  (found,) = update_products.run_pass(one, weights, inputs)
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('agent', ['sac', 'ddpg'])
def test_the_count_is_what_the_compiler_makes_of_an_update(agent):
  size = update_workloads.Size('', 256, 2, 256, 24, 6)
  made = update_workloads._agent(agent, size)
  key, rows = jax.random.key(0), size.batch_size

  def learn(state, batch, rewards):
    return update(made, state, batch, rewards, key, 0)[0]

  # Arguments, not constants: equal observations would share a forward pass.
  array = jax.ShapeDtypeStruct
  obs, action = array((rows, 24), jnp.float32), array((rows, 6), jnp.float32)
  flags, rewards = array((rows,), bool), array((rows,), jnp.float32)
  batch = Transitions(obs, action, obs, flags, flags)
  state = jax.eval_shape(made.init, key)
  compiled = jax.jit(learn).lower(state, batch, rewards).compile()
  ours = products.count_flops(update_workloads.passes_of(agent, size), rows)
  # The rest is activations and Adam.
  assert 1.0 < compiled.cost_analysis()['flops'] / ours < 1.1


def test_turns_are_taken_within_a_budget():
  ran = []
  pieces = [
    taking_turns.Piece('a', lambda n: ran.append(('a', n)), per=2),
    taking_turns.Piece('b', lambda n: ran.append(('b', n)), least=5),
  ]
  found = taking_turns.take_turns(pieces, 1e-9, measure.Compilations())
  assert ran == [('a', 1), ('b', 5)] * 3
  assert {name: len(values) for name, values in found.seconds.items()} == {
    'a': 2,
    'b': 2,
  }
  assert found.compiled == 0


def test_only_what_is_soon_over_is_run_once_more_to_see_how_long_it_takes():
  ran = []
  piece = taking_turns.Piece('a', ran.append, least=3)
  compilations = measure.Compilations()
  for most, times in ((0.0, 1), (math.inf, 2)):
    assert taking_turns._seconds_once(piece, most, compilations) > 0
    assert ran == [3] * times
    ran.clear()


def test_a_run_is_the_sum_of_its_parts():
  ms = {'sac': 2, 'sac step': 3, 'pebble': 4, 'random actions': 1}
  ms |= {'pebble explore': 5, 'bi-level': 6, 'pass over 100 labels': 7}
  ms |= {'relabelling 100': 10, 'relabelling 1,000': 100}
  plan = {'total': 1000, 'random': 100, 'explore': 200, 'catch_up': 10, 'passes': 3}
  results = {
    'main_size': 'x',
    'relabelled': [100, 1000],
    'groups': [{'size': 'x', 'seconds': {k: [v / 1e3] for k, v in ms.items()}}],
    'plans': {'mrn': {**plan, 'sessions': [300, 400], 'outer': [50, 2000]}},
  }
  parts = update_report.run_seconds(results)['mrn']
  assert parts == pytest.approx(
    {
      'random actions': 0.1,
      'exploration': 1.0,
      'learning': 2.8,
      'catching up': 0.02,
      'reward passes': 0.042,
      'relabelling': 0.030 + 0.040 + 0.005 + 0.200,
      'bi-level steps': 0.012,
    }
  )
  ms = results['groups'][0]['seconds']
  results['plans']['pebble'] = results['plans'].pop('mrn')
  ms['pebble, fresh labels'] = [6e-3]
  # 700 steps learn, 2 ms dearer each.
  assert 'would cost 1 s; storing,' in update_report._relabelling(results)
  del ms['bi-level']
  assert update_report.run_seconds(results) == {}


def _at_reference_sizes(small, walker):
  """What brax took, milliseconds."""
  sizes = update_report.REFERENCE_SIZES
  groups = [
    {'size': size, 'seconds': {'brax sac': [ms / 1e3]}}
    for size, ms in (('small', small), ('walker', walker))
  ]
  return {'sizes': dict(sizes), 'groups': groups}


def test_reference_figures_say_how_fast_their_machine_was():
  alike = update_report._reference(_at_reference_sizes(2.42, 82.0))
  assert 'brax took 1.10 times (256x2, batch 256) and 1.00 times' in alike
  assert 'not alike' not in alike
  slower = update_report._reference(_at_reference_sizes(2.2, 205.0))
  first = slower.splitlines()[0]
  assert first.startswith('**The machines are not alike**: brax took 1.00 times')
  assert '2.50 times (1024x2, batch 1024)' in first
  results = _at_reference_sizes(2.2, 82.0)
  del results['groups'][:]
  assert 'brax was not measured here' in update_report._reference(results)
  results['sizes']['walker'] = '16x2, batch 16'
  assert update_report._reference(results) == ''


def _labels(scale, parts):
  found = updates.groups(scale, parts)
  return [(group.label, group.size.name, group.budget) for group in found]


def test_parts_are_measured_in_their_order():
  one_seed = [part for part in updates.PARTS if part not in ('ten_seeds', 'million')]
  assert _labels(updates.FULL, one_seed) == [
    ('updates', 'walker', 24),
    ('updates of many seeds', 'walker', 30),
    ('iterations', 'walker', 60),
    ('bi-level steps', 'walker', 16),
    *(
      (label, size, budget)
      for size in ('metaworld', 'small')
      for label, budget in (
        ('updates', 12),
        ('updates of many seeds', 20),
        ('iterations', 10),
        ('bi-level steps', 8),
      )
    ),
    ('reward fits', 'walker', 24),
    ('relabelling', 'walker', 16),
    ('reward fits', 'metaworld', 12),
    ('relabelling', 'metaworld', 8),
  ]
  only = updates.groups(updates.QUICK, ['reward'])
  assert [group.budget for group in only] == pytest.approx([0.048, 0.032])


def test_many_seeds_are_a_part_and_their_largest_buffers_another():
  assert _labels(updates.FULL, ['ten_seeds']) == [
    (f'{label} of many seeds', size, 12)
    for label, size in (
      ('iterations', 'walker'),
      ('bi-level steps', 'walker'),
      ('iterations', 'metaworld'),
      ('bi-level steps', 'metaworld'),
      ('iterations', 'small'),
      ('bi-level steps', 'small'),
      ('reward fits', 'walker'),
      ('relabelling 100,000', 'walker'),
      ('reward fits', 'metaworld'),
      ('relabelling 100,000', 'metaworld'),
    )
  ]
  million = [('relabelling 1,000,000 of many seeds', 'walker', 12)]
  assert _labels(updates.FULL, ['million']) == million
  everything = [named[:2] for named in _labels(updates.FULL, updates.PARTS)]
  # One seed's own group comes first: whole runs are put together from it.
  for what in ('iterations', 'bi-level steps', 'reward fits'):
    alone, many = (what, 'walker'), (f'{what} of many seeds', 'walker')
    assert everything.index(alone) < everything.index(many)


def test_each_seed_of_many_is_told_beside_one():
  results = {
    'seeds': 10,
    'sizes': {'x': '', 'y': ''},
    'steps_of_many': {'x': 10, 'y': 50},
    'groups': [
      {'size': 'x', 'seconds': {'pebble': [9.0], 'sac': [0.2, 0.4]}},
      {'size': 'x', 'seconds': {'sac, 10 seeds': [0.3, 0.6]}},
      {
        'size': 'x',
        'seconds': {'pebble': [0.1, 0.2], 'pebble, 10 seeds': [0.11, 0.18]},
      },
      {'size': 'y', 'seconds': {'pebble, 10 seeds': [0.1]}},
    ],
  }
  text = update_report._many_seeds(results)
  _, _, *rows = text.split('\n\n')[0].splitlines()
  assert rows == [
    # Groups apart: the medians of all rounds, in the widest range.
    '| x | SAC update | 300.00 [200.00-400.00] | 450.00 [300.00-600.00]'
    ' | 1.50 [0.75-3.00] |',
    # Round by round, beside the one seed that took turns with them.
    '| x | PEBBLE step | 150.00 [100.00-200.00] | 145.00 [110.00-180.00]'
    ' | 1.00 [0.90-1.10] |',
  ]
  assert text.endswith('1000 in training: 10 (x), 50 (y).')
  del results['groups'][1:3]
  assert update_report._many_seeds(results) == ''


def test_rewards_are_told_of_every_size():
  results = {
    'sizes': {'x': '', 'y': ''},
    'reward_products': {'relabelling 8': ['products', 2.0]},
    'flops': {'x products': 3e6, 'y products': 6e6},
    'groups': [
      {'size': size, 'seconds': {'relabelling 8': [4e-3], 'products': [1e-3]}}
      for size in ('x', 'y')
    ],
  }
  _, _, *rows = update_report._reward(results).split('\n\n')[0].splitlines()
  assert rows == [
    '| x | relabelling 8 | 4.0 | 2.0 | 3 | 50% |',
    '| y | relabelling 8 | 4.0 | 2.0 | 6 | 50% |',
  ]


RESULTS = pathlib.Path(updates.__file__).parent / 'results'


@pytest.mark.parametrize('path', sorted(RESULTS.glob('updates*.json')), ids=str)
def test_the_tables_that_are_kept_are_those_of_the_samples_that_are_kept(path):
  tables = update_report.markdown(json.loads(path.read_text()))
  assert path.with_suffix('.md').read_text() == tables


def _quick(tmp_path, *flags):
  out = tmp_path / 'raw.json'
  updates.main(['--quick', f'--out={out}', *flags])
  return json.loads(out.read_text()), out.with_suffix('.md').read_text()


def test_updates_and_fits_leave_their_tables(tmp_path, capsys):
  results, text = _quick(tmp_path, '--only=updates,reward')
  said = capsys.readouterr()
  assert said.out.strip() == text.strip()
  assert 's left' in said.err
  assert sum(group['compiled'] for group in results['groups']) == 0
  names = {name for group in results['groups'] for name in group['seconds']}
  assert {
    'sac',
    'brax sac',
    'ddpg',
    'sac, 2 seeds',
    'products sac',
    'relabelling 2,000',
  } < names
  assert all(
    min(values) > 0
    for group in results['groups']
    for values in group['seconds'].values()
  )
  for agent in ('sac, 2 seeds', 'brax sac'):
    assert f'| walker | 16x2, batch 16 | {agent} |' in text
  assert '| pass over 100 labels |' in text
  # Sizes of tests stand beside no figures of others, nor under empty headings.
  assert 'reference' not in text
  assert "## MRN's bi-level step" not in text
  assert len(results['plans']['mrn']['outer']) == 179


def test_seeds_that_relabel_much_are_told_alone(tmp_path, capsys):
  results, text = _quick(tmp_path, '--only=million')
  (group,) = results['groups']
  names = 'relabelling 2,000', 'relabelling 2,000, 2 seeds'
  assert (tuple(group['seconds']), group['compiled']) == (names, 0)
  assert '| walker | relabelling 2,000 | ' in text
  assert '## The reward model' not in text


@pytest.mark.slow
def test_everything_leaves_a_whole_run(tmp_path):
  results, text = _quick(tmp_path)
  assert sum(group['compiled'] for group in results['groups']) == 0
  assert '| walker | bi-level, relabelling 1,000 |' in text
  runs = update_report.run_seconds(results)
  assert sum(runs['mrn'].values()) > sum(runs['pebble'].values()) > 0
  assert 'asking anew at every draw would cost' in text
  several = text.partition('## Many seeds beside one')[2].partition('\n## ')[0]
  for name in (
    'SAC update',
    'PEBBLE step',
    'bi-level step, nothing relabelled',
    'pass over 100 labels',
    'relabelling 1,000',
    'relabelling 2,000',
  ):
    assert several.count(f'| walker | {name} |') == 1
  assert '2 seeds |' not in text.partition("## MRN's bi-level step")[2]


def test_a_part_that_does_not_exist_is_refused(capsys):
  with pytest.raises(SystemExit):
    updates.parse(['--only=upates'])
  assert '--only=upates is not one of updates' in capsys.readouterr().err
