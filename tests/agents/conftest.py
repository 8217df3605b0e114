"""Lets the tests of this folder share `off_policy_reference`."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
