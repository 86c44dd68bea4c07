"""Every method has a page, and what that says of its settings is what its spec has."""

from __future__ import annotations

import re

import pytest

from benchmarks.quality.pages import BLOCK, DOCS, with_settings
from core.catalog import methods


@pytest.mark.parametrize("name", list(methods()))
def test_a_method_has_a_page_with_its_settings(name: str) -> None:
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert BLOCK.search(text), "the page needs <!-- settings --> and <!-- /settings -->"
    assert with_settings(text, methods()[name]) == text, "run: make docs"
    for wanted in ("# When to use it", "# (How it fails|Failure modes)", "# (The )?[Pp]apers?"):
        assert re.search(wanted, text), wanted
    for picture in re.findall(r"\]\((images/[^)]+)\)", text):
        assert (DOCS / picture).exists(), picture
