"""A Ray cluster for commands that run on one."""

import logging
import os
from typing import Any

import ray
from ray.exceptions import RayError

from ..errors import SteerError


def join_or_start(address: str | None, cpus: int, gpus: float, object_store_bytes: int) -> None:
    """Join the cluster of an address, or start one here that Ray ends with this process.

    ``cpus`` and ``gpus`` are what the workers reserve together. SteerError.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address, **quiet)
            return
        ray.init(num_cpus=cpus, object_store_memory=object_store_bytes, include_dashboard=False, **quiet)
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        where = f"of {address}" if address else "on this machine"
        raise SteerError(f"no Ray cluster {where}: {str(error).partition(chr(10))[0]}") from error
    there = ray.cluster_resources().get("GPU", 0)
    if gpus > there:
        raise SteerError(f"the workers' --gpus are {gpus:g} in all, more than the {there:g} here")
