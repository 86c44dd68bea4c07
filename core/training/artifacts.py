"""What every job leaves beside its weights: metrics, curves, the exact spec, a model card, and a manifest."""

from __future__ import annotations

import hashlib
import json
import mimetypes
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.training.history import History

MANIFEST = "manifest.json"
MEDIA_TYPES = {".safetensors": "application/octet-stream", ".onnx": "application/octet-stream", ".md": "text/markdown"}


@dataclass(frozen=True)
class ArtifactFile:
    """One file of the manifest; `path` is relative to the artifacts' folder, with forward slashes."""

    path: str
    bytes: int
    sha256: str
    media_type: str


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON that people can read."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_curves(history: History, path: Path) -> None:
    """Draw every metric against the step, metrics that differ only by `valid_` or `train_` together, as PNG."""
    from matplotlib.figure import Figure

    panels: dict[str, list[str]] = {}
    for name, points in history.series.items():
        if len(points) > 1:
            panels.setdefault(name.removeprefix("valid_").removeprefix("train_"), []).append(name)
    if not panels:
        return
    # Fixed margins: a layout engine would draw everything twice, for longer than many a small job trains.
    height = 2.6 * len(panels)
    figure = Figure(figsize=(6.4, height))
    figure.subplots_adjust(left=0.12, right=0.97, top=1 - 0.3 / height, bottom=0.45 / height, hspace=0.4)
    for axes, (title, names) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels.items(), strict=True):
        for name in names:
            axes.plot(*zip(*history.series[name], strict=True), label=name)
        axes.set(title=title, xlabel="step")
        axes.legend()
    figure.savefig(path, dpi=100)


def write_model_card(
    path: Path,
    *,
    title: str,
    summary: str,
    paper: str,
    opens_with: str,
    spec: Mapping[str, Any],
    metrics: Mapping[str, float],
    lineage: Mapping[str, Any],
) -> None:
    """Write the model card: what this is, where it comes from, what it reached, how to open it."""
    rows = "\n".join(f"| {name} | {value:.6g} |" for name, value in metrics.items())
    origin = "\n".join(f"- {name}: `{value}`" for name, value in lineage.items())
    path.write_text(
        f"# {title}\n\n{summary}\n\nMethod from {paper}. Trained with Weightworks.\n\n"
        f"## Results\n\n| metric | value |\n|---|---|\n{rows}\n\n"
        f"## Lineage\n\n{origin}\n\n"
        f"## Opening it\n\n{opens_with}\n\n"
        '```python\nfrom core import load_model\n\nmodel = load_model("this folder")\n```\n\n'
        f"## The exact spec\n\n```json\n{json.dumps(spec, indent=2, ensure_ascii=False)}\n```\n",
        encoding="utf-8",
    )


def list_files(folder: Path) -> list[ArtifactFile]:
    """Every file below `folder`, hashed, ordered by path; the manifest itself is left out."""
    found = []
    for file in sorted(folder.rglob("*")):
        relative = file.relative_to(folder).as_posix()
        if file.is_file() and relative != MANIFEST:
            with file.open("rb") as content:
                sha256 = hashlib.file_digest(content, "sha256").hexdigest()
            found.append(ArtifactFile(relative, file.stat().st_size, sha256, media_type(relative)))
    return found


def write_manifest(folder: Path) -> list[ArtifactFile]:
    """Hash every file below `folder` into `manifest.json`; answers the files, the manifest not among them."""
    files = list_files(folder)
    write_json(folder / MANIFEST, {"files": [asdict(file) for file in files]})
    return files


def media_type(path: str) -> str:
    """The media type of a file by its name."""
    suffix = Path(path).suffix
    return MEDIA_TYPES.get(suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"
