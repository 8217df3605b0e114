"""The benchmarks are scripts that import each other; here they can be imported too."""

import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parents[2] / 'benchmarks'
sys.path[:0] = [str(FOLDER), str(FOLDER / 'baselines')]
