"""The application: what the modules of this folder make together."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from . import health, live, page, routes, timeline, wyoming
from .config import ServeConfig
from .errors import add_handlers
from .fleet import Fleet
from .metrics import Metrics
from .model import ServedModel, load_model
from .observe import Observe
from .realtime import route as realtime
from .tracing import TELEMETRY


def create_app(config: ServeConfig, model: ServedModel | None = None) -> FastAPI:
    """The server as an ASGI application; it loads its first model when it starts, unless it is given it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.state.engine = fleet.open(model or load_model(config))
        async with AsyncExitStack() as others:
            if config.wyoming is not None:
                await others.enter_async_context(wyoming.listening(config.wyoming, fleet))
            yield
            fleet.closing = True  # to what begins now
        await fleet.close()

    metrics = Metrics()
    fleet = Fleet(config, metrics)
    # without FastAPI's own schema, which asks for no key, and its /docs, which loads scripts from elsewhere
    app = FastAPI(title="whisper-sae-steer", lifespan=lifespan, openapi_url=None, telemetry=TELEMETRY)
    app.state.config, app.state.fleet = config, fleet
    app.add_middleware(Observe, metrics=metrics)
    add_handlers(app)
    for module in (routes, health, live, realtime, timeline, page):
        app.include_router(module.router)
    return app
