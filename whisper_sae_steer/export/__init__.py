"""Export: steering as part of the weights, for runtimes that take no hook."""

from .fold import fold

__all__ = ["fold"]
