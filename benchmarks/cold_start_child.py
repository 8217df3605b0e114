"""`python -m rlfb_jax.bin.train`, timed from its start to its first line of metrics.

Takes the flags of rlfb-train, prints one JSON object and ends there. `start` is the
time on the machine's clock (`time.monotonic`) at which the parent started it.
"""

import json
import os
import sys
import time


def main(start: float, argv: list[str]) -> None:
  interpreter = time.monotonic()
  from measure import Compilations

  compilations = Compilations()
  from rlfb_jax.bin import train
  from rlfb_jax.training import run
  from rlfb_jax.training.metrics import Values

  imported = time.monotonic()

  class FirstLine(run.MetricsWriter):
    """Ends the process where the first line is on disk."""

    def write(self, env_steps: int, values: Values) -> None:
      super().write(env_steps, values)
      total = time.monotonic() - start
      stages = {
        'interpreter': interpreter - start,
        'imports': imported - interpreter,
        'trace': compilations.seconds(stage='trace'),
        'lower': compilations.seconds(stage='lower'),
        'compile': compilations.seconds(stage='compile'),
      }
      rest = imported - start + compilations.seconds()
      stages['run'] = total - rest
      counts = {
        'programs': compilations.count,
        'cache_hits': compilations.hits,
        'env_steps': env_steps,
      }
      print(json.dumps({'total': total, **stages, **counts}), flush=True)
      os._exit(0)

  run.MetricsWriter = FirstLine  # type: ignore[misc]
  train.main(argv)


if __name__ == '__main__':
  main(float(sys.argv[1]), sys.argv[2:])
