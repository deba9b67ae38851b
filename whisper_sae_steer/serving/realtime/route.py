"""The WebSocket: a client's events in, those of its turns out."""

from functools import partial

from fastapi import APIRouter, Depends, WebSocket, status

from ...errors import AudioError
from ..errors import ApiError
from ..fleet import Fleet
from ..security import require_key
from ..sessions import Backlog, TooLong
from ..sockets import Closing, Socket, serve, together
from .audio import AudioReader
from .events import Append, Event, SessionUpdate, client_event, client_id, error_event, event, new_id, parse
from .settings import CHUNK_SECONDS, Settings, default_settings, from_beta
from .turns import Chosen, Mark, Turns

BETA = ("realtime=v1", "openai-beta.realtime-v1")
"""how clients ask for the beta's events: by the header OpenAI-Beta, and browsers by a sub-protocol"""
STATUSES = {status.WS_1011_INTERNAL_ERROR: 500, status.WS_1013_TRY_AGAIN_LATER: 429}
"""HTTP's for codes of closing, which say what type an error is"""
MODEL = "session.audio.input.transcription.model"
"""where an update names the model"""

router = APIRouter()


@router.websocket("/v1/realtime")
async def realtime(websocket: WebSocket, _: None = Depends(require_key)) -> None:
    """One transcription session. Sessions share the workers with uploads: each step is a job."""
    fleet: Fleet = websocket.app.state.fleet
    await serve(websocket, fleet, partial(_session, fleet, websocket), _last_message)


def _last_message(closing: Closing) -> Event:
    return error_event(ApiError(STATUSES.get(closing.code, 400), closing.reason, "session_closed"))


async def _session(fleet: Fleet, websocket: WebSocket, socket: Socket) -> None:
    if websocket.query_params.get("intent", "transcription") != "transcription":
        raise Closing(status.WS_1008_POLICY_VIOLATION, "this server transcribes: intent=transcription")
    name = websocket.query_params.get("model")
    try:
        engine = await fleet.engine(name)
        chosen = Chosen(default_settings(engine, name or engine.name), engine)
    except ApiError as error:
        raise Closing(status.WS_1008_POLICY_VIOLATION, str(error)) from None
    beta = BETA[0] in websocket.headers.get("openai-beta", "") or BETA[1] in websocket.scope["subprotocols"]
    client = Client(fleet, socket, chosen.settings, beta)
    turns = Turns(chosen, client.backlog, beta)
    await client.say_session("created")
    await together(client.listen(), _answer(socket, turns))


async def _answer(socket: Socket, turns: Turns) -> None:
    async for made in turns.events():
        await socket.send(made)


class Client:
    """Whoever sends events: their settings and audio, on the way to the backlog."""

    def __init__(self, fleet: Fleet, socket: Socket, settings: Settings, beta: bool):
        self._fleet, self._socket, self._settings, self._beta = fleet, socket, settings, beta
        self._id, self._reader = new_id("sess"), AudioReader(settings.input.format.type)
        self.backlog: Backlog[Mark] = Backlog(CHUNK_SECONDS, fleet.config.max_audio_seconds)

    async def listen(self) -> None:
        """Take events until the client goes; one that is wrong is answered with an error."""
        while True:
            parsed = None
            try:
                parsed = parse(await self._socket.receive())
                await self._take(parsed)
            except TooLong as error:
                raise Closing(status.WS_1008_POLICY_VIOLATION, str(error)) from None
            except ApiError as error:
                await self._socket.send(error_event(error, client_id(parsed)))

    async def say_session(self, what: str) -> None:
        """Send the settings as they are now."""
        kind = "transcription_session" if self._beta else "session"
        shown = {
            "id": self._id,
            "object": "realtime.transcription_session",
            **self._settings.shown(self._beta),
        }
        await self._socket.send(event(f"{kind}.{what}", session=shown))

    async def _take(self, parsed: object) -> None:
        taken = client_event(parsed)
        if isinstance(taken, Append):
            try:
                samples = self._reader.read(taken.data)
            except AudioError as error:
                raise ApiError(400, str(error), "invalid_value", "audio") from None
            await self.backlog.put(samples)
        elif isinstance(taken, SessionUpdate):
            await self._update(taken)
        else:
            await self.backlog.put(self._reader.rest())
            await self.backlog.mark(taken)

    async def _update(self, update: SessionUpdate) -> None:
        flat = update.type == "transcription_session.update"
        session = from_beta(update.session) if flat else update.session
        settings = self._settings.updated(session)
        chosen = await self._chosen(settings)
        if settings.input.format.type != self._settings.input.format.type:
            await self.backlog.put(self._reader.rest())
            self._reader = AudioReader(settings.input.format.type)
        self._settings = settings
        await self.backlog.mark(chosen)
        await self.say_session("updated")

    async def _chosen(self, settings: Settings) -> Chosen:
        """With the model, loaded. ApiError for one that there isn't, and for what it can't do."""
        try:
            engine = await self._fleet.engine(settings.input.transcription.model)
        except ApiError as error:
            raise ApiError(error.status, error.message, error.code, MODEL) from None
        settings.transcriber(engine)  # refuses what this model can't do
        return Chosen(settings, engine)
