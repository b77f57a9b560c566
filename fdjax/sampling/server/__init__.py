"""Sampling on a server of vLLM or SGLang, with weights by export and reload."""

from fdjax.sampling.server.config import ServerConfig
from fdjax.sampling.server.sampler import ServerSampler

__all__ = ["ServerConfig", "ServerSampler"]
