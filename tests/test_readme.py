"""README.md: every Python snippet runs, every make target and file that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def test_readme_has_snippets() -> None:
    assert len(SNIPPETS) >= 3


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet_runs(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself, as a reader would paste it in the project's folder."""
    monkeypatch.chdir(ROOT)
    exec(compile(SNIPPETS[number], f"README.md, snippet {number + 1}", "exec"), {})


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, flags=re.MULTILINE))
    documents = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}
    for document, text in documents.items():
        # Commands stand in backquotes or on indented lines.
        named = set(re.findall(r"(?:`|^    )make ([a-z0-9-]+)", text, flags=re.MULTILINE))
        assert named, document
        assert named <= targets, f"{document} names {sorted(named - targets)}"
    phony = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == {t for t in targets if not t.startswith(".")}


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
