"""The models that requests may name: the first is always there, others come on demand and go when idle."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

import structlog

from ..errors import ConfigError
from .config import ServeConfig
from .engine import ServingEngine, Slots
from .errors import ApiError, Busy
from .metrics import Metrics
from .model import ServedModel, load_model, served_name

RETRY_SECONDS = 10
"""after which to come back to a model that is being loaded, or can't be"""
CHECKS = 4
"""for idle models, in the time after which they are unloaded"""

log = structlog.get_logger()


class Member:
    """One model: its engine while it is loaded, and those who wait until it is."""

    def __init__(self, config: ServeConfig, metrics: Metrics, uploads: Slots):
        self.config, self.name = config, served_name(config)
        self.engine: ServingEngine | None = None
        self._metrics, self._uploads = metrics, uploads
        self._waiting = Slots(config.jobs_of_a_model)
        self._loading: asyncio.Task[ServingEngine] | None = None
        metrics.show(
            self.name,
            queued=lambda: self.queued,
            running=lambda: self.engine.running if self.engine else 0,
            loaded=lambda: self.engine is not None,
        )

    @property
    def queued(self) -> int:
        """Requests that wait for the model or for a worker."""
        return self._waiting.taken + (self.engine.queued if self.engine else 0)

    @property
    def has_room(self) -> bool:
        return self.engine.has_room if self.engine else self._waiting.has_free

    def serve(self, model: ServedModel) -> ServingEngine:
        """Put a loaded model to work."""
        model.config, model.metrics = self.config, self._metrics.of(self.name)
        self.engine = ServingEngine(self.config, self.name, model, self._metrics, self._uploads)
        return self.engine

    async def ready(self) -> ServingEngine:
        """The engine; loads its model first where it isn't, once for all who wait. Busy or ApiError 503."""
        if self.engine is not None:
            self.engine.last_used = time.monotonic()
            return self.engine
        if not self._waiting.take():
            raise Busy(f"{self.name} is being loaded and its queue is full; try again later", RETRY_SECONDS)
        try:
            self._loading = self._loading or asyncio.create_task(self._load())
            return await asyncio.shield(self._loading)  # others wait for it, or soon will
        finally:
            self._waiting.give_back()

    async def _load(self) -> ServingEngine:
        try:
            return self.serve(await asyncio.to_thread(load_model, self.config))
        except Exception:
            log.exception("a model can't be loaded", model=self.name)
            message = f"{self.name} can't be loaded; the server's log says why"
            headers = {"Retry-After": str(RETRY_SECONDS)}
            raise ApiError(503, message, "model_unavailable", "model", headers) from None
        finally:
            self._loading = None

    def unload_if_idle(self) -> None:
        """Let go of an engine that nobody has used for long: its threads and memory go with it."""
        if self.engine is not None and self.engine.idle_seconds > self.config.idle_unload:
            self.engine = None
            log.info("model unloaded", model=self.name)


class Fleet:
    """Engines by the names of their models; made before, opened and closed inside an event loop.

    ConfigError where two models would have one name.
    """

    def __init__(self, config: ServeConfig, metrics: Metrics):
        self.config, self.metrics = config, metrics
        self.started = int(time.time())
        self.uploads = Slots(config.max_uploads)
        """held by uploads that come in, and by live sessions"""
        models = (config.model, *config.further_models)
        # a share each: who floods one model's queue finds no place in another's
        own = replace(config, further_models=(), max_queue=config.max_queue // len(models))
        self.members = [Member(replace(own, model=model), metrics, self.uploads) for model in models]
        self.default, *self.others = self.members
        self.names: Mapping[str, Member] = dict(self._named())
        """what requests may call the models"""
        self.closing = False
        self._watching: asyncio.Task[None] | None = None

    def _named(self) -> Iterator[tuple[str, Member]]:
        aliases = [name for name in dict.fromkeys(self.config.aliases) if name != self.default.name]
        names = [self.default.name, *aliases, *(member.name for member in self.others)]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(
                    f"two models would be called {name}: rename a folder, or change the aliases"
                )
        members = [self.default] * (1 + len(aliases)) + self.others
        return zip(names, members, strict=True)

    def open(self, model: ServedModel) -> ServingEngine:
        """Serve, with this as the default model; its engine."""
        if self.config.idle_unload:
            self._watching = asyncio.create_task(self._watch())
        return self.default.serve(model)

    async def engine(self, name: str | None = None) -> ServingEngine:
        """That of a model, loaded; the default's where no name is given.

        ApiError 404 (no such model), 429 (too many wait until it is loaded) or 503 (it can't be loaded).
        """
        return await self.member(name).ready()

    def member(self, name: str | None = None) -> Member:
        """The model of a name, loaded or not. ApiError 404."""
        member = self.default if name is None else self.names.get(name)
        if member is None:
            served = ", ".join(self.names)
            raise ApiError(404, f"no model {name!r} here; there are {served}", "model_not_found", "model")
        return member

    @property
    def queued(self) -> int:
        return sum(member.queued for member in self.members)

    @property
    def has_room(self) -> bool:
        """Whether a request now would be taken, by one model at least."""
        room = any(member.has_room for member in self.members)
        return room and self.uploads.has_free and not self.closing

    def busy(self) -> Busy:
        """The refusal for now."""
        return next(member.engine.busy() for member in self.members if member.engine)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.config.idle_unload / CHECKS)
            for member in self.others:
                member.unload_if_idle()

    async def close(self) -> None:
        """Take no more jobs."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        for member in self.members:
            if member.engine is not None:
                member.engine.close()
