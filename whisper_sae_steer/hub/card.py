"""The README of a repository on the hub: what it holds, how to use it, figures, sources and licences."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..models.repository import Repository, whisper_on_hub
from ..reports.figures import definition, flat
from ..sae.autoencoder import SAEConfig
from ..steering.pack import SteeringPack, stored_digest
from .licences import built_from

LIBRARY = "whisper-sae-steer"


def pack_card(pack: SteeringPack, repository: Repository, licence: str, report: bool) -> str:
    """The card of a steering pack in Markdown; ``report`` if its page ``report.html`` lies beside it."""
    assert pack.path is not None
    metadata = pack.metadata
    about = {
        "edit": f"{metadata.strategy} at `{metadata.tap}`, by {metadata.selection}, gate: {metadata.gate}",
        "for weights with fingerprint": f"`{metadata.fingerprint}`",
        "SHA-256 of tensors and metadata": f"`{stored_digest(pack.path)}`",
        "checked with": ", ".join(metadata.compute_types) or "no compute type",
        "made with": metadata.created_with or "no program that says so",
    }
    figures = {**metadata.metrics, "guarantee": metadata.guarantee}
    return f"""{_front_matter(licence, metadata.model, ["steering-pack"])}
# Steering pack for Whisper {metadata.model}

Keeps Whisper `{metadata.model}` from writing text where nobody speaks (how well is said below):
{LIBRARY} edits the encoder's output along directions found by a sparse autoencoder.
At `steer_alpha=1` it works as calibrated, at 0 the model is the plain one.

## Use

```python
import whisper_sae_steer

model = whisper_sae_steer.load_model("{metadata.model}", pack="{repository.address}")
result = model.transcribe("call.wav")
```

```
pip install {LIBRARY}
{LIBRARY} transcribe call.wav --model {metadata.model} --pack {repository.address}
```

{_table(("", ""), about.items())}

## Held-back figures

Measured at steer_alpha = 1 on recordings that the calibration did not see{_definition(figures)}.
{"Plots: [report.html](report.html)." if report else ""}

{_figures(figures)}

## Sources and licences

{_sources(metadata.data)}
"""


def sae_card(config: SAEConfig, repository: Repository, licence: str) -> str:
    """The card of a sparse autoencoder in Markdown."""
    figures = config.metadata.get("held_back")
    model = whisper_on_hub(config.model) or config.model or "a model that the file doesn't name"
    about = {
        "kind": config.architecture,
        "reads": f"`{config.tap or 'an activation that the file does not name'}`, width {config.d_in}",
        "features": f"{config.d_sae}" + (f", k = {config.k}" if config.k else ""),
        "for weights with fingerprint": f"`{config.metadata.get('fingerprint', 'unknown')}`",
    }
    return f"""{_front_matter(licence, config.model, ["sae", "saelens"])}
# Sparse autoencoder of {model}

In the layout of SAELens 6: `cfg.json` and `sae_weights.safetensors`.

## Use

```python
from whisper_sae_steer import from_pretrained

sae = {from_pretrained_call(repository)}
features = sae.encode(frames)  # [..., {config.d_in}] to [..., {config.d_sae}]
```

```
pip install {LIBRARY}
{LIBRARY} pull {repository.address} --out sae
```

{_table(("", ""), about.items())}

## Held-back figures

{_figures(figures if isinstance(figures, Mapping) else {})}

## Sources and licences

{_sources(config.metadata)}
"""


def from_pretrained_call(repository: Repository) -> str:
    """The Python that loads the SAE of a repository."""
    revision = f', revision="{repository.revision}"' if repository.revision else ""
    return f'from_pretrained("{repository.name}"{revision})'


def _front_matter(licence: str, model: str, tags: Sequence[str]) -> str:
    """YAML that the hub reads; strings as JSON, which YAML includes."""
    base = whisper_on_hub(model)
    fields = {
        "library_name": LIBRARY,
        "license": licence,
        **({"base_model": base} if base else {}),
        "tags": [LIBRARY, *tags, "whisper", "sparse-autoencoder", "activation-steering"],
    }
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---", ""])


def _definition(figures: Mapping[str, Any]) -> str:
    said = figures.get("definition")
    return f" ({said})" if said else ""


def _figures(figures: Mapping[str, Any]) -> str:
    rows = list(flat(figures))
    if not rows:
        return "None are known."
    known = [(name, f"{value:.4g}", definition(name)) for name, value in rows]
    return _table(("figure", "value", "what it is"), known)


def _sources(data: Mapping[str, Any]) -> str:
    lines: list[str] = []
    for made_from in built_from(data):
        lines += [f"- {line}" for line in made_from.get("licences") or ()]
        lines += [f"- {n} recordings of {source}" for source, n in (made_from.get("sources") or {}).items()]
        if made_from.get("synthetic"):
            lines.append(f"- {made_from['synthetic']} synthetic sounds")
    return "\n".join(dict.fromkeys(lines)) or "The file doesn't name its recordings."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)
