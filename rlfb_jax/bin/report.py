"""rlfb-report: compares runs on one self-contained page, with tables for papers.

rlfb-report runs/walker_walk-rbrl runs/walker_walk-rbrl_kl --out=report
rlfb-report runs/my_sweep --out=report --title='Ratings against pairs'
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import cast

from rlfb_jax.bin import flags
from rlfb_jax.core.config import Options, option
from rlfb_jax.reports import comparison, records, write
from rlfb_jax.training.progress import tell

PROGRAM = 'rlfb-report'


@dataclasses.dataclass(frozen=True)
class ReportOptions(Options):
  """What is written where; the runs are named without a flag."""

  out: str = option('report', 'folder to write to; an older report is written over')
  title: str = option('', 'heading of the page; the tasks and arms where empty')


SECTIONS: flags.Sections = {'': ReportOptions}


def main(argv: Sequence[str]) -> None:
  """Writes the report that the command line asks for."""
  if flags.wants_help(argv):
    print(flags.help_text(__doc__ or '', SECTIONS))
    return
  with flags.usage_errors(PROGRAM):
    config, paths = flags.parse_with_names(argv, SECTIONS)
    options = cast(ReportOptions, config[''])
    if not paths:
      raise ValueError(f'No runs are named; try {PROGRAM} runs/NAME --out=report.')
    found, problems = records.find(paths)
    compared = comparison.compare(found, problems)
    title = options.title or default_title(compared)
    try:
      page = write.write(compared, options.out, title)
    except OSError as error:
      raise ValueError(
        f'--out={options.out} cannot be written to ({error.strerror}); name another'
        ' folder.'
      ) from None
  for problem in compared.problems:
    tell(f'{PROGRAM}: {problem}')
  print(page)


def default_title(c: comparison.Comparison) -> str:
  """Arms and tasks, where they are few enough to be read."""
  arms = ', '.join(c.arms) if len(c.arms) <= 4 else f'{len(c.arms)} arms'
  tasks = ', '.join(c.tasks) if len(c.tasks) <= 3 else f'{len(c.tasks)} tasks'
  return f'{arms} on {tasks}'


def run() -> None:
  """Entry point of the command."""
  main(sys.argv[1:])


if __name__ == '__main__':
  run()
