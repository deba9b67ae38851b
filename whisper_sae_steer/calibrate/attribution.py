"""What the decoder listens to: gradients of "nobody speaks" with respect to the frames at a tap.

The objective of a window is log p(no-speech at SOT) + log p(end of text after <|0.00|>) + log p(end of text
after <|notimestamps|>): the events that make ``transcribe`` write nothing, with and without timestamps.
A model that never uses its no-speech token (large-v3-turbo) has the first term left out, which would point at
that token alone. The gradient is nearly orthogonal to the difference of mean activations and far stronger, so
directions are built from it (benchmarks/RESULTS.md).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from whisper.model import Whisper
from whisper.tokenizer import LANGUAGES, Tokenizer, get_tokenizer

from ..models.taps import rest_of_encoder


class SilenceObjective:
    """log p(no-speech) + log p(end of text), see above, as a differentiable function of frames at a tap."""

    def __init__(self, model: Whisper, tap: str = "encoder_output", no_speech_works: bool = True):
        self.model = model.eval().requires_grad_(False)
        self.rest = rest_of_encoder(model.encoder, tap)
        """what leads from the tap to the encoder's output"""
        self._no_speech_works = no_speech_works
        self._languages = list(LANGUAGES) if model.is_multilingual else ["en"]

    def tokenizer(self, language: str) -> Tokenizer:
        """The tokenizer to transcribe a language."""
        return get_tokenizer(
            self.model.is_multilingual,
            num_languages=self.model.num_languages,
            language=language,
            task="transcribe",
        )

    def __call__(self, frames: Tensor, languages: Sequence[str]) -> Tensor:
        """Frames [B, 1500, d] at the tap, a language for each → objective [B]."""
        frames = self.rest(frames)
        tokenizers = [self.tokenizer(language) for language in languages]
        prompts = [[*t.sot_sequence, t.timestamp_begin] for t in tokenizers]
        prompts += [[*t.sot_sequence, t.no_timestamps] for t in tokenizers]
        tokens = torch.tensor(prompts, device=frames.device)
        logits = self.model.decoder(tokens, torch.cat([frames, frames])).float().log_softmax(-1)
        timed, untimed = logits.split(len(frames))
        no_speech, eot = tokenizers[0].no_speech, tokenizers[0].eot
        assert no_speech is not None
        ends = timed[:, -1, eot] + untimed[:, -1, eot]
        return ends + timed[:, 0, no_speech] if self._no_speech_works else ends

    def gradient(self, frames: Tensor, languages: Sequence[str]) -> Tensor:
        """Gradient of the objective, [B, 1500, d] for frames of that shape."""
        frames = frames.detach().requires_grad_()
        return torch.autograd.grad(self(frames, languages).sum(), frames)[0]

    def languages(self, count: int) -> list[str]:
        """Languages for ``count`` windows without speech: those Whisper knows best, in turn."""
        common = self._languages[:12]
        return [common[i % len(common)] for i in range(count)]


def path_gradient(
    objective: SilenceObjective,
    windows: Sequence[Tensor],
    length: float,
    steps: int = 4,
    batch_size: int = 4,
) -> Tensor:
    """Mean gradient direction along a path of growing edits: [d].

    ``windows`` are frames [1500, d] without speech. At each step the running direction, scaled up to
    ``length``, is added to all frames before the gradient is taken, so that the result points where the
    objective still rises after the edit, not only at its start.
    """
    total = torch.zeros(windows[0].shape[-1])
    languages = objective.languages(len(windows))
    for step in range(steps):
        edit = total / total.norm().clamp_min(1e-12) * (length * step / steps)
        mean = torch.zeros_like(total)
        for start in range(0, len(windows), batch_size):
            batch = torch.stack(list(windows[start : start + batch_size])).float() + edit
            gradient = objective.gradient(batch, languages[start : start + batch_size])
            per_window = gradient.sum(1)
            mean += (per_window / per_window.norm(dim=-1, keepdim=True).clamp_min(1e-12)).sum(0)
        total += mean / len(windows)
    return total / total.norm()
