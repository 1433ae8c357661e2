"""What is generated says what the code says."""

from __future__ import annotations

import pytest

from scripts.generate_docs import PAGES, ROOT, main, outdated


@pytest.mark.parametrize("name", PAGES)
def test_page_is_current(name: str) -> None:
    assert name not in outdated(), "run: python -m scripts.generate_docs"
    assert (ROOT / name).read_text(encoding="utf-8") == PAGES[name]()


def test_check_names_the_page_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PAGES, "docs/none.md", lambda: "text")
    assert main(["--check"]) == 1
    assert "docs/none.md is out of date" in capsys.readouterr().err
    assert not (ROOT / "docs/none.md").exists()
