"""Reinforcement learning from feedback in JAX, compiled end to end."""

from rlfb_jax.core.xla_flags import avoid_cpu_deadlock

avoid_cpu_deadlock()
