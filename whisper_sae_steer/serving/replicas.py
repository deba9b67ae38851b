"""Replicas of the server on a Ray cluster, kept alive by Ray Serve."""

import asyncio
import gc
import re
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from starlette.types import Message

from ..commands.cluster import join_or_start
from ..errors import SteerError
from .app import create_app
from .config import ReplicaConfig, ServeConfig
from .forwarding import Ask, Forwarded, Lost, Unavailable, answer_of
from .gateway import create_gateway
from .logs import configure
from .model import load_model

APPLICATION = "whisper-sae-steer"
OBJECT_STORE_BYTES = 256 << 20
"""bytes: uploads on their way"""
START_SECONDS = 30.0
"""that a request waits for a replica to take it"""
TAKEN = {"type": "taken"}
"""what a replica says first"""


class Replica:
    """The whole server but for its sockets, in a process of the cluster."""

    async def __init__(self, config: ServeConfig):  # type: ignore[misc]  # Ray awaits it
        configure()
        self._app = create_app(config, load_model(config))
        gc.freeze()  # as in :mod:`.command`
        self._lifespan = self._app.router.lifespan_context(self._app)
        await self._lifespan.__aenter__()

    async def __call__(self, request: Forwarded) -> AsyncGenerator[Message]:
        yield TAKEN
        async with aclosing(answer_of(self._app, request)) as messages:
            async for message in messages:
                yield message


@contextmanager
def served_by_replicas(config: ServeConfig, options: ReplicaConfig) -> Generator[Any]:
    """The gateway to replicas that are there and ready, and go at the end. SteerError if they can't start."""
    cpus, most = config.workers * (config.cpu_threads or 1), options.max_replicas or options.replicas
    if not ray.is_initialized():
        join_or_start(options.address, cpus * most, options.gpus * most, OBJECT_STORE_BYTES)
    scale: dict[str, Any] = {"num_replicas": options.replicas}
    if options.max_replicas is not None:
        scale = {
            "autoscaling_config": {
                "min_replicas": options.replicas,
                "max_replicas": options.max_replicas,
                "target_ongoing_requests": config.workers,
            }
        }
    deployment = serve.deployment(
        ray_actor_options={"num_cpus": cpus, "num_gpus": options.gpus},
        max_ongoing_requests=config.max_uploads,  # each replica refuses by itself what it can't do
        graceful_shutdown_timeout_s=config.shutdown_timeout,
        **scale,
    )(Replica)
    serve.start(proxy_location="Disabled")
    try:
        handle = _deploy(deployment.bind(config))
        yield create_gateway(config, asker(handle), running_replicas)
    finally:
        serve.delete(APPLICATION)


def _deploy(replica: Any) -> Any:
    """A handle to replicas that run. SteerError."""
    try:
        return serve.run(replica, name=APPLICATION, route_prefix=None)
    except (RayError, RayServeException, RuntimeError) as error:
        told = [deployment.message for deployment in _deployments()] or [str(error)]
        errors = re.findall(r"^\s*(?:\S+\.)?\w+Error: .*", "\n".join(told), re.MULTILINE)
        raise SteerError(f"the replicas can't start: {(errors or told)[-1].strip()}") from error


def asker(handle: Any) -> Ask:
    """Asks the replicas behind a handle, each request the one that has the least to do."""
    streaming = handle.options(stream=True)

    async def ask(request: Forwarded) -> AsyncGenerator[Message]:
        answer = streaming.remote(request)
        messages = aiter(answer)
        try:
            await asyncio.wait_for(anext(messages), START_SECONDS)  # TAKEN
            async for message in messages:
                yield message
        except asyncio.TimeoutError:
            raise Unavailable(f"no replica took the request in {START_SECONDS:g} s") from None
        except (RayError, RayServeException) as error:
            raise Lost(str(error).partition("\n")[0]) from error
        finally:
            answer.cancel()

    return ask


async def running_replicas() -> int:
    """Those that take requests now."""
    deployments = await asyncio.to_thread(_deployments)
    return sum(deployment.replica_states.get("RUNNING", 0) for deployment in deployments)


def _deployments() -> list[Any]:
    """What Ray Serve knows of the application's."""
    application = serve.status().applications.get(APPLICATION)
    return list(application.deployments.values()) if application is not None else []
