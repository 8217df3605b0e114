"""Experiments are scripts that import each other; here they can be imported too."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / 'experiments'))
