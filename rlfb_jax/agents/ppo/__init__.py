"""Proximal policy optimisation."""

from rlfb_jax.agents.ppo.config import PPOOptions as PPOOptions
from rlfb_jax.agents.ppo.networks import ActorParams as ActorParams
from rlfb_jax.agents.ppo.networks import PPOParams as PPOParams
from rlfb_jax.agents.ppo.networks import mean_network as mean_network
from rlfb_jax.agents.ppo.networks import policy as policy
from rlfb_jax.agents.ppo.networks import reset_value_head as reset_value_head
from rlfb_jax.agents.ppo.update import PPOState as PPOState
from rlfb_jax.agents.ppo.update import Rollout as Rollout
from rlfb_jax.agents.ppo.update import act as act
from rlfb_jax.agents.ppo.update import init_state as init_state
from rlfb_jax.agents.ppo.update import update as update
