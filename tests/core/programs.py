"""What programs hold."""

import jax


def products(jaxpr):
  """The precision of each product in a program, those in its parts included."""
  found = []
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      found.append(equation.params['precision'])
    for part in jax.tree.leaves(
      equation.params, is_leaf=lambda x: hasattr(x, 'eqns') or hasattr(x, 'jaxpr')
    ):
      inner = getattr(part, 'jaxpr', part)
      if hasattr(inner, 'eqns'):
        found += products(inner)
  return found
