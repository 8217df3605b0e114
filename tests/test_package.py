"""What `import rlfb_jax` offers, to people and to type checkers."""

import ast
import importlib.metadata
import inspect
import subprocess
import sys

import pytest

import rlfb_jax


def test_the_import_alone_loads_nothing_and_names_are_found():
  code = 'import rlfb_jax, sys; dir(rlfb_jax); assert "jax" not in sys.modules'
  subprocess.run([sys.executable, '-c', code], check=True)
  assert {'train', 'load_policy', '__version__'} <= set(dir(rlfb_jax))
  assert rlfb_jax.__version__ == importlib.metadata.version('rlfb-jax')
  with pytest.raises(AttributeError, match='no attribute'):
    _ = rlfb_jax.load_policies


def test_type_checkers_see_what_is_served_on_first_use():
  # Without these imports a checker takes the type of `__getattr__` for each name; mypy
  # itself, which takes half a minute, need not be asked.
  tree = ast.parse(inspect.getsource(rlfb_jax))
  seen = {
    alias.asname or alias.name: f'{node.module}.{alias.name}'
    for block in tree.body
    if isinstance(block, ast.If) and ast.unparse(block.test) == 'TYPE_CHECKING'
    for node in block.body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
  }
  for name in set(rlfb_jax.__all__) - {'__version__'}:
    served = getattr(rlfb_jax, name)
    assert seen[name] == f'{served.__module__}.{served.__qualname__}'
