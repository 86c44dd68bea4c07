"""Job specs as people write them: in a file or as key=value, with local paths where the API wants ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from weightworks.client import Client
from weightworks.errors import UnreadableSpec


class Upload(Protocol):
    """Uploads a file and answers its id."""

    def __call__(self, path: Path, *, is_model: bool) -> str:
        """The id of the uploaded file."""


def read_spec(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises UnreadableSpec."""
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnreadableSpec(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UnreadableSpec(f"{path} is not JSON: {error}") from None
    if not isinstance(spec, dict):
        raise UnreadableSpec(f"{path} must hold an object: {{...}}")
    return spec


def read_settings(settings: Iterable[str]) -> dict[str, Any]:
    """`epochs=3 lora.rank=8 name=first` as a spec: values are JSON where they can be, else text; dots go inside."""
    spec: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise UnreadableSpec(f"'{setting}' is not a setting; they look like epochs=3")
        *outer, last = path.split(".")
        place = spec
        for name in outer:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise UnreadableSpec(f"'{setting}' looks inside '{name}', which is set to a value")
        place[last] = _value(text)
    return spec


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def with_uploads(client: Client, spec: Mapping[str, Any], upload: Upload) -> dict[str, Any]:
    """The spec with local paths, where it wants a file or a model, replaced by the ids of what was uploaded."""
    if "method" not in spec:
        return dict(spec)
    method = client.methods.get(str(spec["method"]))
    files, models = method.fields_that_name("file"), method.fields_that_name("model")
    return {
        name: _uploaded(value, upload, is_model=name in models) if name in files | models else value
        for name, value in spec.items()
    }


def _uploaded(value: Any, upload: Upload, *, is_model: bool) -> Any:
    if not isinstance(value, str) or value.startswith(("file-", "model-", "ckpt-")):
        return value
    path = Path(value).expanduser()
    if not path.is_file():
        raise UnreadableSpec(f"'{value}' is neither the id of a file nor a file here")
    return upload(path, is_model=is_model)
