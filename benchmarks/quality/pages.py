"""Writes each method's settings, as its spec has them, into its page: `python -m benchmarks.quality.pages`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.catalog import methods
from core.registry import Method
from core.spec import MethodSpec, TrainingSpec

DOCS = Path(__file__).parents[2] / "docs" / "methods"
BLOCK = re.compile(r"(<!-- settings -->\n).*?(<!-- /settings -->)", re.DOTALL)
SHARED = set(MethodSpec.model_fields)  # what every job may ask for stands in no page


def settings_table(method: Method) -> str:
    """The settings of a method as a Markdown table, its own before those that all training has."""
    schema = method.spec.model_json_schema()
    own = [name for name in schema["properties"] if name not in TrainingSpec.model_fields]
    common = [name for name in schema["properties"] if name in TrainingSpec.model_fields and name not in SHARED]
    rows = [_row(name, schema["properties"][name], schema) for name in ("dataset", *own, *common)]
    return "\n".join(["| setting | default | values | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _row(name: str, field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    needed = name in schema.get("required", [])
    default = "needed" if needed else _written(field.get("default"))
    meaning = str(field.get("description", "")).replace("|", "\\|")
    return f"| `{name}` | {default} | {_values(field, schema)} | {meaning} |"


def _written(default: Any) -> str:
    if default is None:
        return "none"
    if isinstance(default, bool):
        return "true" if default else "false"
    return (
        f"{default:g}" if isinstance(default, float) else f"`{default}`" if isinstance(default, str) else str(default)
    )


def _values(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """What a field takes: its choices, its limits, or its type."""
    if "reference" in field and "architecture" not in str(field):
        return f"id of a {field['reference']}"
    if "anyOf" in field or "oneOf" in field:
        found = [_values(each, schema) for each in (*field.get("anyOf", ()), *field.get("oneOf", ()))]
        return ", ".join(dict.fromkeys(each for each in found if each))
    if "$ref" in field:
        return _referred(field["$ref"].rpartition("/")[2], schema)
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of {_values(field.get('items', {}), schema)}"
    if field.get("type") in ("integer", "number"):
        return _limits(field)
    return {"boolean": "true, false", "string": "text", "object": "object", "null": ""}.get(str(field.get("type")), "")


def _referred(name: str, schema: Mapping[str, Any]) -> str:
    properties = schema["$defs"][name].get("properties", {})
    tag = properties.get("architecture", {}).get("const")
    inner = ", ".join(key for key in properties if key != "architecture")
    return f"`{tag}` ({inner})" if tag and inner else f"{{{', '.join(properties)}}}"


def _limits(field: Mapping[str, Any]) -> str:
    low = field.get("minimum", field.get("exclusiveMinimum"))
    high = field.get("maximum", field.get("exclusiveMaximum"))
    kind = "integer" if field["type"] == "integer" else "number"
    parts = []
    if low is not None:
        parts.append(f"{'above' if 'exclusiveMinimum' in field else 'from'} {low:,}")
    if high is not None:
        parts.append(f"{'below' if 'exclusiveMaximum' in field else 'to'} {high:,}")
    return " ".join([kind, *parts])


def with_settings(text: str, method: Method) -> str:
    """A page with the method's settings in its block."""
    return BLOCK.sub(lambda found: found[1] + settings_table(method) + found[2], text)


def main() -> None:
    """Write all pages anew."""
    for name, method in methods().items():
        page = DOCS / f"{name}.md"
        page.write_text(with_settings(page.read_text(encoding="utf-8"), method), encoding="utf-8")


if __name__ == "__main__":
    main()
