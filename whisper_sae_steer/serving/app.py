"""The application: what the modules of this folder make together."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from . import health, live, page, routes, timeline
from .config import ServeConfig
from .engine import ServingEngine
from .errors import add_handlers
from .metrics import Metrics
from .model import ServedModel, load_model, served_name
from .observe import Observe
from .realtime import route as realtime


def create_app(config: ServeConfig, model: ServedModel | None = None) -> FastAPI:
    """The server as an ASGI application; it loads the model when it starts, unless it is given one."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        served = model or load_model(config)
        served.config, served.metrics = config, metrics
        engine = app.state.engine = ServingEngine(config, served_name(config), served, metrics)
        yield
        engine.close()

    metrics = Metrics()
    # without FastAPI's own schema, which asks for no key, and its /docs, which loads scripts from elsewhere
    app = FastAPI(title="whisper-sae-steer", lifespan=lifespan, openapi_url=None)
    app.state.config = config
    app.add_middleware(Observe, metrics=metrics)
    add_handlers(app)
    for module in (routes, health, live, realtime, timeline, page):
        app.include_router(module.router)
    return app
