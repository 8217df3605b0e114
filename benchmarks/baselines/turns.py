"""How a baseline takes turns with the benchmark: one iteration for each line it reads.

Only the standard library is used, because a baseline may live in an environment of
its own. A worker warms up, prints a first message with its facts, and then prints
the seconds of one iteration for every line that comes in, until there are no more.
"""

import argparse
import json
import sys
import time
from importlib import metadata
from typing import Any

MARK = '@bench '  # Other lines on standard output are the libraries' own.

# The settings that baselines share with ours: name, default, meaning.
SETTINGS = (
  ('num_envs', 32, 'environments'),
  ('rollout_steps', 500, 'control steps of each environment in an iteration'),
  ('num_epochs', 20, 'passes over a rollout'),
  ('minibatch_size', 128, 'transitions in a gradient step'),
  ('hidden_size', 256, 'width of actor and critic'),
  ('hidden_layers', 3, 'hidden layers of actor and critic'),
)

# Not worth a flag: they do not change the work.
LEARNING_RATE, DISCOUNT, GAE_LAMBDA = 5e-5, 0.99, 0.92
CLIP_RANGE, MAX_GRAD_NORM, VALUE_COEFFICIENT = 0.4, 0.5, 0.5


def parse(description: str) -> argparse.Namespace:
  """The command line of a baseline."""
  parser = argparse.ArgumentParser(description=description)
  parser.add_argument('--task', default='walker_walk')
  parser.add_argument('--warmups', type=int, default=1, help='untimed iterations')
  for name, default, meaning in SETTINGS:
    parser.add_argument(f'--{name}', type=int, default=default, help=meaning)
  return parser.parse_args()


def versions(*packages: str) -> dict[str, str]:
  """Installed versions of packages."""
  return {package: metadata.version(package) for package in packages}


class Turns:
  """The worker's side."""

  def __init__(self, warmups: int, facts: dict[str, Any]):
    """Starts the clock of the first iteration.

    Args:
      warmups: iterations before the first message, at least 1.
      facts: what the first message says.
    """
    self._warmups = warmups
    self._facts = facts
    self._start = time.perf_counter()

  def end_iteration(self) -> None:
    """Reports the iteration that has ended and waits for the next turn.

    Raises:
      SystemExit: when nobody waits for another one.
    """
    seconds = time.perf_counter() - self._start
    self._warmups -= 1
    if self._warmups > 0:
      self._start = time.perf_counter()
      return
    say(self._facts if self._warmups == 0 else {'seconds': seconds})
    if not sys.stdin.readline():
      raise SystemExit(0)
    self._start = time.perf_counter()


def say(message: dict[str, Any]) -> None:
  """Prints one message."""
  print(MARK + json.dumps(message), flush=True)
