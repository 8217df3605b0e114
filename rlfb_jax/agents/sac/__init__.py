"""Soft actor-critic."""

from rlfb_jax.agents.sac.config import SACOptions as SACOptions
from rlfb_jax.agents.sac.networks import policy as policy
from rlfb_jax.agents.sac.update import SACState as SACState
from rlfb_jax.agents.sac.update import make_sac as make_sac
