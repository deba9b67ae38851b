"""Frames encoded while training: the same interface as a store, and nothing written to disk."""

from collections.abc import Iterator, Sequence
from itertools import islice

from torch import Tensor

from ..audio.clips import Clip
from .encoders import FrameEncoder
from .source import FrameRecipe, Pool, encode_windows, shuffled, source_key
from .stream import AudioWindow, Position, StreamConfig, WindowStream, hold_back

HELD_BACK_WINDOWS = 64
FRAMES_A_WINDOW = 1024
"""about as many hold audio, on average"""


class LiveFrames:
    """Endless frames of clips, in each epoch in another order, with other noise mixed in."""

    def __init__(
        self,
        encoder: FrameEncoder,
        clips: Sequence[Clip],
        stream: StreamConfig | None = None,
        recipe: FrameRecipe | None = None,
    ):
        config, self._recipe = stream or StreamConfig(), recipe or FrameRecipe()
        self.model, self.fingerprint = encoder.model, encoder.fingerprint
        self.encoder_mark = encoder.encoder_mark
        self.key = "live " + source_key(encoder, clips, config, self._recipe)
        self._encoder = encoder
        train, held = hold_back(clips)
        self._stream, self._seed = WindowStream(train, config), config.seed
        self._held = WindowStream(held, StreamConfig(seed=config.seed)) if held else None
        self._held_frames: dict[str, Tensor] | None = None
        first = next(self._stream.endless(Position()))
        self.taps = {tap: h.shape[1] for tap, h in self._encode([first]).items()}

    def pools(
        self, start: Sequence[int] | None, taps: Sequence[str], size: int, seed: int, rank: int, world: int
    ) -> Iterator[Pool]:
        """As a store's; of several processes each encodes every ``world``-th window."""
        at = Position(*start) if start else Position()
        windows = self._stream.endless(at)
        count = max(world, size // FRAMES_A_WINDOW)
        while True:
            batch = list(islice(windows, count))
            frames = self._encode(batch[rank::world])
            order = shuffled(len(next(iter(frames.values()))), [seed, *at])
            yield Pool({tap: frames[tap][order.to(frames[tap].device)] for tap in taps}, list(at))
            at = batch[-1].after

    def held_back_frames(self, tap: str) -> Iterator[Tensor]:
        """Frames [N, d] of recordings held back, encoded once."""
        if self._held_frames is None:
            windows = list(islice(self._held.epoch(Position()), HELD_BACK_WINDOWS)) if self._held else []
            self._held_frames = self._encode(windows) if windows else {}
        if tap in self._held_frames:
            yield self._held_frames[tap]

    def _encode(self, windows: Sequence[AudioWindow]) -> dict[str, Tensor]:
        return encode_windows(self._encoder, windows, self._recipe, self._seed)
