"""The command ``serve``."""

import argparse
import os
from dataclasses import replace

from ..commands.common import check_compute_type
from ..commands.extras import require
from ..commands.fields import add_fields, from_fields
from .config import ServeConfig

KEY_VARIABLE = "WHISPER_SAE_STEER_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that :func:`main` reads."""
    add_fields(parser, ServeConfig)


def main(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; requests that run then are finished within the limit."""
    require("serve", "serve")
    config = from_fields(args, ServeConfig)
    if config.api_key is None:
        config = replace(config, api_key=os.environ.get(KEY_VARIABLE))
    check_compute_type(config.compute_type, config.device)
    import uvicorn  # and all of torch: after the options

    from .app import create_app
    from .connections import PunctualProtocol
    from .logs import configure
    from .model import load_model
    from .sockets import MESSAGE_BYTES

    app = create_app(config, load_model(config))
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
    return 0
