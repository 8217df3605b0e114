"""What shares a program, how it is cut, and what it is called."""

import pytest

from rlfb_jax import methods
from rlfb_jax.bin import launch
from rlfb_jax.training.run import make_environment
from tests.sweeps.tiny import BASE, begun, jobs_of


def test_numbers_and_seeds_share_a_program_and_shapes_do_not():
  jobs = jobs_of(
    ppo_learning_rate='1e-3,3e-3',
    ppo_hidden_size='4,8',
    seeds=3,
    base=(*BASE, '--seed=5'),
  )
  assert [len(job.rows) for job in jobs] == [6, 6]
  for job in jobs:
    assert [row.seed for row in job.rows] == [5, 6, 7, 5, 6, 7]
    rates = [row.flags for row in job.rows]
    assert rates == [{'ppo_learning_rate': r} for r in [1e-3] * 3 + [3e-3] * 3]
    assert job.config.run.num_seeds == 6
  assert {job.config.ppo.hidden_size for job in jobs} == {4, 8}


def test_a_value_that_switches_a_part_off_is_a_job_of_its_own():
  jobs = jobs_of(ppo_entropy_coefficient='0,0.01,0.02')
  assert sorted(len(job.rows) for job in jobs) == [1, 2]


def test_scales_of_the_rater_share_a_job_and_the_tasks_own_has_another():
  base = ('--task=walker_walk', '--method=rbrl')
  jobs = jobs_of(base=base, seeds=2, rating_max_return='0,10,20,50')
  scales = [job.config.rating.max_return for job in jobs]
  assert (scales, [len(job.rows) for job in jobs]) == ([0.0, 10.0], [2, 6])
  given = [row.flags['rating_max_return'] for row in jobs[1].rows]
  assert given == [10.0, 10.0, 20.0, 20.0, 50.0, 50.0]


def test_numbers_of_classes_share_a_job_where_padding_is_exact():
  base = ('--task=walker_walk',)
  jobs = jobs_of(
    seeds=2,
    base=base,
    method='rbrl,rbrl_kl',
    kl_weights='geometric,pooled',
    rating_num_classes='3,4,6',
  )
  own = [(job.config.run.method, job.config.kl.weights, len(job.rows)) for job in jobs]
  # Pooled weights say nothing of RbRL, and yet are another name.
  assert own == [
    ('rbrl', 'geometric', 6),
    ('rbrl', 'pooled', 6),
    ('rbrl_kl', 'geometric', 6),
    *[('rbrl_kl', 'pooled', 2)] * 3,
  ]
  classes = [row.flags['rating_num_classes'] for row in jobs[2].rows]
  assert classes == [3, 3, 4, 4, 6, 6]
  cut = jobs_of(
    seeds=2, base=(*base, '--method=rbrl'), rating_num_classes='3,4,6', max_rows=4
  )
  assert [[row.flags['rating_num_classes'] for row in job.rows] for job in cut] == [
    [3, 3, 4],
    [4, 6, 6],
  ]


def test_arms_that_differ_in_numbers_alone_meet_in_one_job():
  numbers = {'a': {'ppo_gae_lambda': '0.5'}, 'b': {'ppo_learning_rate': '1e-3'}}
  (job,) = jobs_of(arms=numbers)
  assert job.arms == ('a', 'b')
  assert job.rows[0].flags == {'ppo_learning_rate': 5e-5, 'ppo_gae_lambda': 0.5}
  assert job.rows[1].flags == {'ppo_learning_rate': 1e-3, 'ppo_gae_lambda': 0.92}
  # Of what a folder holds already, a run that nobody asks for any more has none.
  (rest,) = jobs_of(arms={'c': numbers['b']}, held=[begun(job, finished=True)])
  assert rest.arms == ('', 'c')
  others = jobs_of(arms={'a': {'ppo_num_epochs': '2'}, 'b': {'method': 'ppo'}})
  assert [job.arms for job in others] == [('a',), ('b',)]


@pytest.mark.parametrize(
  ('max_rows', 'sizes'), [(0, [10]), (4, [3, 3, 4]), (1, [1] * 10)]
)
def test_rows_are_cut_evenly_and_each_is_run_once(max_rows, sizes):
  jobs = jobs_of(max_rows=max_rows, ppo_learning_rate='1e-3,3e-3', seeds=5)
  assert [len(job.rows) for job in jobs] == sizes
  assert len({job.name for job in jobs}) == len(jobs)
  runs = [
    (row.seed, row.flags.get('ppo_learning_rate', job.config.ppo.learning_rate))
    for job in jobs
    for row in job.rows
  ]
  assert sorted(runs) == sorted((s, r) for s in range(5) for r in (1e-3, 3e-3))


def test_memory_bounds_the_rows():
  base = ('--task=probe_choice', '--method=sac', '--total_env_steps=100000')
  config = launch.parse([*base, '--num_seeds=3'])
  env = make_environment(config)
  memory = methods.memory_needed(config, env).total
  jobs = jobs_of(memory=memory, seeds=7, base=base)
  assert [len(job.rows) for job in jobs] == [2, 2, 3]
  assert all(job.memory <= memory for job in jobs)
  # What cannot fit at all is still a job: it says itself what is missing.
  assert len(jobs_of(memory=1, seeds=2, base=base)) == 2


def test_names_are_of_what_is_trained_and_of_nothing_else():
  names = [job.name for job in jobs_of(ppo_hidden_size='4,8')]
  assert names[0].startswith('probe_choice-ppo-ppo_hidden_size=4-s0-')
  kept = (*BASE, '--checkpoint_minutes=1', '--tensorboard=false', '--num_threads=3')
  kept += ('--mesh=seed:2',)
  assert [job.name for job in jobs_of(ppo_hidden_size='4,8', base=kept)] == names
  other = (*BASE, '--ppo_num_epochs=3')
  assert not set(names) & {j.name for j in jobs_of(ppo_hidden_size='4,8', base=other)}
  # However it is written: in the grid, for all, or as the default.
  (alone,) = jobs_of(base=(*BASE, '--ppo_hidden_size=4'))
  assert alone.name.endswith(names[0][-8:])


@pytest.mark.parametrize(
  ('grid', 'sentence'),
  [
    ({'sac_learning_rate': '1'}, 'With --sac_learning_rate=1: .* --sac_actor_learning'),
    ({'task': 'probe_choic'}, 'With --task=probe_choic: .* did you mean probe_choice'),
    ({'total_env_steps': '321'}, 'With --total_env_steps=321: .*_env_steps=320'),
    ({'kl_beta': '0.1,0.10'}, 'Seed 0 is there twice, by --kl_beta=0.1 and by'),
    ({'mesh': 'seed:1,seed:2'}, 'Seed 0 is there twice, by --mesh=seed:1 and by'),
    ({'seed': '0,1'}, 'Seed 1 is there twice, by --seed=0 and by --seed=1'),
  ],
)
def test_a_cell_that_cannot_be_run_is_named(grid, sentence):
  with pytest.raises(ValueError, match=sentence) as caught:
    jobs_of(seeds=2, **grid)
  assert '\n' not in str(caught.value)
