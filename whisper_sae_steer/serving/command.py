"""The command ``serve``."""

import argparse
import gc
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..commands.common import check_compute_type
from ..commands.extras import require
from ..commands.fields import add_fields, from_fields
from ..errors import ConfigError
from .config import ReplicaConfig, ServeConfig

if TYPE_CHECKING:
    from fastapi import FastAPI

KEY_VARIABLE = "WHISPER_SAE_STEER_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that :func:`main` reads."""
    parser.add_argument(
        "--model",
        nargs="+",
        default=[ServeConfig.model],
        metavar="NAME",
        help="names or paths of Whisper models; the first is the default and always loaded, others are loaded"
        " at the first request that names them",
    )
    add_fields(parser, ServeConfig, skip=("model", "further_models"))
    add_fields(parser.add_argument_group("replicas"), ReplicaConfig)


def main(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; requests that run then are finished within the limit."""
    require("serve", "serve")
    config, where = config_of(args), from_fields(args, ReplicaConfig)
    check_free(config.host, config.port)
    if config.wyoming is not None and config.wyoming.startswith("tcp"):
        address = urlsplit(config.wyoming)
        check_free(address.hostname or "", address.port or 0)
    if where.engine == "ray":
        if config.device == "cuda" and not where.gpus:
            raise ConfigError("--engine ray hides GPUs from replicas that reserve none; say --gpus 1")
        if config.wyoming is not None:
            raise ConfigError("--wyoming needs the model in this process; leave out --engine ray")
        require("--engine ray", "ray")
        from .replicas import served_by_replicas

        with served_by_replicas(config, where) as app:
            _run(app, config)
        return 0
    check_compute_type(config.compute_type, config.device)
    from .app import create_app  # and all of torch: after the options
    from .model import load_model

    _run(create_app(config, load_model(config)), config)
    return 0


def config_of(args: argparse.Namespace) -> ServeConfig:
    """What the arguments and the environment say of the server. ConfigError."""
    first, *further = args.model
    named = argparse.Namespace(**vars(args) | {"model": first, "further_models": further})
    config = from_fields(named, ServeConfig)
    return config if config.api_key is not None else replace(config, api_key=os.environ.get(KEY_VARIABLE))


def check_free(host: str, port: int) -> None:
    """ConfigError if nobody may listen there now: said before a model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise ConfigError(f"can't listen at {host}:{port}: {error.strerror or error}") from None


def _run(app: "FastAPI", config: ServeConfig) -> None:
    """Until a signal comes."""
    import uvicorn

    from .connections import OPTIONS
    from .logs import configure

    configure()
    gc.freeze()  # the model stays: garbage is then found in milliseconds
    uvicorn.run(
        app,
        host=config.host,
        port=config.port,
        timeout_graceful_shutdown=config.shutdown_timeout,
        **OPTIONS,
    )
