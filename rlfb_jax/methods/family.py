"""Families: runs that differ in numbers which set no shape share one program.

A family is itself an `Algorithm`. Its state carries each run's own numbers beside the
run's state, and each function builds the method anew, while it is being traced, with
those numbers in place of the configuration's. So the loop, checkpoints and devices need
not know that there is more than one configuration.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rlfb_jax.core.config import flag_name
from rlfb_jax.core.padding import Padded
from rlfb_jax.core.types import Key, Metrics
from rlfb_jax.envs.base import Environment
from rlfb_jax.methods.algorithm import Algorithm, PerKind, Session
from rlfb_jax.methods.check import check
from rlfb_jax.methods.config import Config, to_sections
from rlfb_jax.methods.make import make
from rlfb_jax.methods.recipes import KL
from rlfb_jax.repulsion.options import HEAD_MODES
from rlfb_jax.repulsion.weights import class_weights

Values = Mapping[str, jax.Array]  # Flag -> one number (or vector) a run.
Capacities = Mapping[str, int]  # Flag -> the largest number, where it sets lengths.

# Seeds are rows of a family anyway, and the folder is where it is left.
_NOT_COMPARED = ('seed', 'num_seeds', 'run_dir')


class Sweepable(NamedTuple):
  """An option that may differ within a family.

  Attributes:
    part: of `Config`.
    field: of the part.
    dtype: float32 or int32.
    apart: values that need a program of their own all the same, or None.
    padded: whether arrays are as long as it, see `core.padding`.
  """

  part: str
  field: str
  dtype: Any
  apart: Callable[[Any], bool] | None
  padded: bool


class FamilyState(flax.struct.PyTreeNode):
  """One run of a family.

  Attributes:
    values: its own numbers, flag -> [] ([n + 1] of `kl_weights`, for the largest n).
    state: the method's state under them.
  """

  values: dict[str, jax.Array]
  state: Any


class Family(NamedTuple):
  """Runs in one program.

  Attributes:
    algorithm: of all; its `init` takes `(key, values)` of one run.
    values: flag -> number of each run, [S, ...].
  """

  algorithm: Algorithm
  values: dict[str, jax.Array]


@functools.cache
def sweepable() -> Mapping[str, Sweepable]:
  """Every option that is declared with `sweep=True`, by its flag."""
  found = {}
  for prefix, section in to_sections(Config()).items():
    kinds = typing.get_type_hints(type(section))
    for field in dataclasses.fields(section):
      if field.metadata.get('sweep'):
        dtype = jnp.int32 if kinds[field.name] is int else jnp.float32
        found[flag_name(prefix, field.name)] = Sweepable(
          prefix or 'run',
          field.name,
          dtype,
          field.metadata['apart'],
          field.metadata['padded'],
        )
  return MappingProxyType(found)


def flags_of(config: Config) -> dict[str, Any]:
  """Every option of a configuration by its flag."""
  return {
    flag_name(prefix, field.name): getattr(section, field.name)
    for prefix, section in to_sections(config).items()
    for field in dataclasses.fields(section)
  }


def is_shared(flag: str, value: Any, config: Config) -> bool:
  """Whether runs with this and other such values may be of one family.

  Args:
    flag: name of any option.
    value: that `config` gives it.
    config: of the run; what it does decides whether padding is exact.
  """
  option = sweepable().get(flag)
  if option is None or (option.padded and not _pads_exactly(config)):
    return False
  return not (option.apart and option.apart(value))


def _pads_exactly(config: Config) -> bool:
  """Whether classes that nothing is rated as leave a run as it is.

  Not where the pooled law repels, for its row comes after all classes; nor where the
  set of classes that repel depends on n (hpml), or rows share out states to visit.
  """
  if KL not in config.recipe.add:
    return True
  return config.kl.kl_mode not in HEAD_MODES and is_shared(
    'kl_weights', config.kl.weights, config
  )


def program_of(config: Config) -> tuple[tuple[str, Any], ...]:
  """What configurations must have in common to be of one family; hashable.

  All flags but the seeds and the folder, with None for each number that a family may
  differ in.
  """
  return tuple(
    (flag, None if is_shared(flag, value, config) else value)
    for flag, value in flags_of(config).items()
    if flag not in _NOT_COMPARED
  )


def make_family(configs: Sequence[Config], env: Environment) -> Family:
  """One algorithm for several configurations.

  A run of it equals the plain run of its configuration up to the rounding of what the
  compiler folds where numbers are constants.

  Args:
    configs: one a run, all of one `program_of`; seeds and folders are not looked at.
    env: where the agents act.

  Raises:
    ValueError: in one sentence, if a configuration contradicts itself or cannot share
      a program with the first.
  """
  first = configs[0]
  for config in configs:
    check(config, env)
    if program_of(config) != program_of(first):
      raise ValueError(
        f'{_difference(first, config)} cannot differ between runs of one program; make'
        ' a run of its own for each value.'
      )
  flags = [flags_of(config) for config in configs]
  options = sweepable()
  differing = {f for f in options if any(row[f] != flags[0][f] for row in flags)}
  capacities = {
    flag: max(row[flag] for row in flags) for flag in differing if options[flag].padded
  }
  if capacities and KL in first.recipe.add:
    differing.add('kl_weights')  # Of the same kind, and yet of another length.
  values = {
    flag: jnp.array([_number(flag, c, capacities) for c in configs], option.dtype)
    for flag, option in options.items()
    if flag in differing
  }
  return Family(_algorithm(first, env, capacities), values)


def _number(flag: str, config: Config, capacities: Capacities) -> Any:
  """An option as the number that a program takes; of a kind of weights, the weights."""
  if flag == 'kl_weights':
    num_classes = config.rating.num_classes
    weights = np.asarray(class_weights(config.kl, num_classes))
    # No kind that shares a program weighs the last one, the pooled law: 0 as well.
    behind = capacities.get('rating_num_classes', num_classes) - num_classes
    return np.pad(weights, (0, behind))
  return flags_of(config)[flag]


def _algorithm(config: Config, env: Environment, capacities: Capacities) -> Algorithm:
  # Answers what the host asks: nothing that it may ask depends on the values.
  template = make(config, env)

  def member(values: Values) -> Algorithm:
    numbers: dict[str, Any] = {
      flag: Padded(value, capacities[flag]) if flag in capacities else value
      for flag, value in values.items()
    }
    return make(_replaced(config, numbers), env)

  def of_member(pick: Callable[[Algorithm], Any]) -> Callable[[FamilyState], Any]:
    def run(family: FamilyState) -> tuple[FamilyState, Metrics]:
      state, metrics = pick(member(family.values))(family.state)
      return family.replace(state=state), metrics

    return run

  def chunk(name: str) -> Callable[[FamilyState], Any]:
    return of_member(lambda algorithm: algorithm.chunks[name])

  def event(name: str) -> Callable[[FamilyState], Any]:
    return of_member(lambda algorithm: algorithm.events[name])

  def init(row: tuple[Key, dict[str, jax.Array]]) -> FamilyState:
    key, values = row
    return FamilyState(values, member(values).init(key))

  session = None
  if template.session is not None:
    session = _session(lambda values: typing.cast(Session, member(values).session))
  critics = template.critics
  if critics is not None:
    of_state = critics.params
    critics = critics._replace(params=lambda family: of_state(family.state))
  return template._replace(
    init=init,
    chunks={name: chunk(name) for name in template.chunks},
    session=session,
    diagnose=of_member(lambda a: a.diagnose) if template.diagnose else None,
    policy=lambda family: template.policy(family.state),
    critics=critics,
    events={name: event(name) for name in template.events},
  )


def _session(member: Callable[[Values], Session]) -> Session:
  """The teacher sees no state: it gets its numbers together with its key."""

  def propose(
    family: FamilyState, strategies: PerKind, wanted: PerKind
  ) -> tuple[FamilyState, Any, tuple[Values, Key]]:
    state, queries, key = member(family.values).propose(
      family.state, strategies, wanted
    )
    return family.replace(state=state), queries, (family.values, key)

  def teach(queries: Any, values_and_key: tuple[Values, Key]) -> Any:
    values, key = values_and_key
    return member(values).teach(queries, key)

  def absorb(
    family: FamilyState, queries: Any, answers: Any, wanted: PerKind
  ) -> tuple[FamilyState, Metrics]:
    state, metrics = member(family.values).absorb(
      family.state, queries, answers, wanted
    )
    return family.replace(state=state), metrics

  return Session(propose=propose, teach=teach, absorb=absorb)


def _replaced(config: Config, values: Mapping[str, Any]) -> Config:
  """The configuration with other numbers under some flags, traced ones too."""
  parts: dict[str, dict[str, Any]] = {}
  for flag, value in values.items():
    option = sweepable()[flag]
    parts.setdefault(option.part, {})[option.field] = value
  changed = {
    part: dataclasses.replace(getattr(config, part), **fields)
    for part, fields in parts.items()
  }
  return dataclasses.replace(config, **changed)


def _difference(a: Config, b: Config) -> str:
  """The first flag, as `--flag=value`, that keeps `b` out of the family of `a`."""
  pairs = zip(program_of(a), program_of(b), strict=True)
  flag = next(ours for (ours, x), (_, y) in pairs if x != y)
  return f'--{flag}={flags_of(b)[flag]}'
