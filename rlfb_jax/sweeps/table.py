"""Jobs as lines of text."""

from collections.abc import Iterable, Sequence

from rlfb_jax.sweeps.cost import Estimate
from rlfb_jax.sweeps.folder import State
from rlfb_jax.sweeps.jobs import Job

_HEAD = (
  'job', 'runs', 'differing flags', 'memory', 'time', 'estimated from', 'state',
)  # fmt: skip


def show(
  jobs: Sequence[Job], times: Sequence[Estimate], states: Sequence[State]
) -> str:
  """A table of jobs, one a line, and what is left of them."""
  lines = [_HEAD]
  for job, time, state in zip(jobs, times, states, strict=True):
    memory = f'{job.memory / 2**20:,.0f} MiB'
    cells = (job.name, str(len(job.rows)), own_flags(job) or '-', memory)
    lines.append((*cells, duration(time.seconds), time.source, str(state)))
  widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
  rows = (
    '  '.join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines
  )
  return '\n'.join([*(row.rstrip() for row in rows), '', summary(times, states)])


def summary(times: Sequence[Estimate], states: Sequence[State]) -> str:
  """How many jobs there are, how many are done, and how long the rest takes."""
  counts = ', '.join(
    f'{states.count(state)} {state}' for state in State if states.count(state)
  )
  left = [t for t, s in zip(times, states, strict=True) if s is not State.DONE]
  text = f'{len(states)} jobs: {counts}'
  return text + (f'; {together(left)} left on one machine' if left else '')


def together(times: Sequence[Estimate]) -> str:
  """How long jobs take one after the other: `about 3 h 20 min`."""
  known = [time.seconds for time in times if time.seconds is not None]
  parts = [f'about {duration(sum(known))}'] if known else []
  if len(known) < len(times):
    parts.append(f'{len(times) - len(known)} of unknown time')
  return ' and '.join(parts)


def own_flags(job: Job) -> str:
  """Flags in which the runs of a job differ, with their values."""
  values: dict[str, list[str]] = {}
  for row in job.rows:
    for flag, value in row.flags.items():
      values.setdefault(flag, []).append(str(value))
  return ' '.join(f'{f}={",".join(_unique(v))}' for f, v in values.items())


def duration(seconds: float | None) -> str:
  """Two units at most: `45 s`, `12 min`, `3 h 20 min`, `2 d 4 h`; `?` for None."""
  if seconds is None:
    return '?'
  if seconds < 59.5:
    return f'{seconds:.0f} s'
  minutes = round(seconds / 60)
  if minutes < 60:
    return f'{minutes} min'
  hours, minutes = divmod(minutes, 60)
  if hours < 48:
    return f'{hours} h {minutes} min'
  return f'{hours // 24} d {hours % 24} h'


def _unique(values: Iterable[str]) -> list[str]:
  return list(dict.fromkeys(values))
