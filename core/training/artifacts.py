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
MODEL_ENDINGS = (".zip", ".zst", ".gz", ".tar", ".tgz", ".gguf")  # of uploaded models
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


def describe_adapter(folder: Path, *, origin: Mapping[str, Any]) -> None:
    """Have peft's folder say which base it belongs on. `origin`: of the base, as the lineage has it.

    A base that was uploaded goes by its file's name, which is that of a hub where it came from one; a model or a
    checkpoint of this server has no name that anybody else knows: there peft's field stays empty.
    """
    filename = origin.get("filename")
    name, _, revision = (None, "", "") if filename is None else base_model_name(filename).partition("@")
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**config, "base_model_name_or_path": name, "revision": revision or None})
    told = "\n".join(f"- {key}: `{value}`" for key, value in origin.items())
    head = f"---\nlibrary_name: peft\n{f'base_model: {name}' if name else 'tags: [lora]'}\n---\n\n"
    (folder / "README.md").write_text(
        f"{head}# A LoRA adapter\n\nTrained with Weightworks. It belongs on the base\n\n{told}\n\n"
        "and on no other. The model with the adapter merged in is the folder above.\n\n"
        "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        'base = AutoModelForCausalLM.from_pretrained("the base\'s folder")\n'
        'model = PeftModel.from_pretrained(base, "this folder")\n```\n\n'
        "Of another task than writing texts, the Auto class is the one that `config.json` above names.\n",
        encoding="utf-8",
    )


def base_model_name(filename: str) -> str:
    """What a model is called whose file is called so: `SmolLM2-135M.gguf` is SmolLM2-135M."""
    for ending in MODEL_ENDINGS:
        filename = filename.removesuffix(ending)
    return filename


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
