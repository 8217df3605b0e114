"""What an arm is: a method, named together with what sets it apart from others."""

import collections
from collections.abc import Mapping, Sequence

from rlfb_jax.methods.config import HOUSEKEEPING
from rlfb_jax.methods.device_options import HOSTS
from rlfb_jax.methods.recipes import RECIPES
from rlfb_jax.reports.records import Record

# Where and how a run was made, not what it was; or named in other ways.
_CIRCUMSTANCE = (
  *HOUSEKEEPING, *HOSTS, 'mesh', 'engine', 'impl', 'eval_episodes', 'eval_interval',
  'agent', 'ask', 'add', 'method', 'task', 'seed', 'num_seeds',
)  # fmt: skip


def name_arms(records: Sequence[Record]) -> list[str]:
  """A name for each record's arm: its method, and what else sets it apart.

  Flags are named where records of the same method and task differ in them; flags that
  follow from the task alone, such as a rater's scale, therefore are not. Of those that
  are on or off, the ones that are on are named.
  """
  names = [record.name or composition(record.flags) for record in records]
  told = [set() for _ in records]  # type: list[set[str]]
  groups = collections.defaultdict(list)
  for i, record in enumerate(records):
    groups[record.task, names[i]].append(i)
  for (_, name), group in groups.items():
    flags = {f for i in group for f in records[i].flags if not is_circumstance(f)}
    for flag in flags:
      # A flag that one of them does not know yet sets nothing apart.
      if len({records[i].flags[flag] for i in group if flag in records[i].flags}) > 1:
        # The arm is called the same on every task.
        for i, other in enumerate(names):
          if other == name:
            told[i].add(flag)
  return [
    name + ''.join(_shown(f, records[i].flags.get(f, '?')) for f in sorted(told[i]))
    for i, name in enumerate(names)
  ]


def _shown(flag: str, value: str) -> str:
  """A flag in the name of an arm; one that is off goes without saying."""
  return {'true': f' {flag}', 'false': ''}.get(value, f' {flag}={value}')


def composition(flags: Mapping[str, str]) -> str:
  """A method with the ingredients that were changed: `rbrl@sac`, `mrn+kl/both`."""
  signs = {'agent': '@', 'add': '+', 'ask': '/'}
  changed = [sign + flags[name] for name, sign in signs.items() if flags.get(name)]
  return flags.get('method', 'run') + ''.join(changed)


def family(arm: str, record: Record) -> str:
  """What an arm learns from, see `Comparison.families`."""
  method = record.flags.get('method', record.name)
  if method not in RECIPES:
    return arm
  return record.flags.get('ask') or RECIPES[method].ask


def is_circumstance(flag: str) -> bool:
  """Whether a flag says where or how a run was made, or is named in other ways."""
  return flag in _CIRCUMSTANCE
