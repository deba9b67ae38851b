"""The command ``serve``."""

import argparse
import os
from dataclasses import replace
from typing import TYPE_CHECKING

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
    args.model, *args.further_models = args.model
    config, where = from_fields(args, ServeConfig), from_fields(args, ReplicaConfig)
    if config.api_key is None:
        config = replace(config, api_key=os.environ.get(KEY_VARIABLE))
    if where.engine == "ray":
        if config.device == "cuda" and not where.gpus:
            raise ConfigError("--engine ray hides GPUs from replicas that reserve none; say --gpus 1")
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


def _run(app: "FastAPI", config: ServeConfig) -> None:
    """Until a signal comes."""
    import uvicorn

    from .connections import PunctualProtocol
    from .live import MESSAGE_BYTES
    from .logs import configure

    configure()
    uvicorn.run(
        app,
        host=config.host,
        port=config.port,
        log_config=None,
        access_log=False,
        server_header=False,
        http=PunctualProtocol,
        ws_max_size=MESSAGE_BYTES,
        ws_max_queue=2,
        timeout_graceful_shutdown=config.shutdown_timeout,
    )
