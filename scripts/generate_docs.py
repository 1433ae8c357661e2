"""Write the parts of `docs/` that are made from the code, so that they cannot say anything else.

    .venv/bin/python -m scripts.generate_docs          write them
    .venv/bin/python -m scripts.generate_docs --check  exit 1 if one is out of date

A generated page is a function from nothing to text, listed in `PAGES`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import settings
from scripts.state_machines_page import state_machines_page

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- made by scripts/generate_docs.py: change the code, then run it -->"

SETTINGS = f"""# Settings

{NOTE}

Everything that can be set, its kind and its default. `./launch.py check` says in one line what is wrong with them.

Where a setting comes from, the later wins:

1. the default below,
2. a dictionary `settings = {{…}}` in the context file,
3. the file `synergy.toml` in the context's folder, else in the current one (another file: `SYNERGY_SETTINGS=path`),
4. the environment: `SYNERGY_` and the name in capitals, `SYNERGY_MX_PORT=8080`
   (`SYNERGY_START_TIMEPERIOD`, whose name begins so already),
5. the command line: `--context`, `--state-folder`, `--box`, and `--set name=value` for all.

```toml
# synergy.toml
context = "."
mx_port = 8080
log_format = "json"
```

| name | kind | default | meaning |
|---|---|---|---|
"""

NOT_SETTINGS = """
Variables that are no settings:

| variable | meaning |
|---|---|
| `SYNERGY_SETTINGS` | the settings file |
| `SYNERGY_VENV` | where `launch.py` installs what it needs, if not in `.venv`: for a read-only clone |
| `SYNERGY_EXTRAS` | optional dependencies that `launch.py` installs too, separated by commas: `mongo,rabbit` |
"""


def settings_page() -> str:
    """`docs/settings.md`."""
    rows = [f"| `{row.name}` | {row.type} | {row.default} | {row.doc} |" for row in settings.describe()]
    return SETTINGS + "\n".join(rows) + "\n" + NOT_SETTINGS


PAGES: dict[str, Callable[[], str]] = {
    "docs/settings.md": settings_page,
    "docs/state-machines.md": state_machines_page,
}


def outdated() -> list[str]:
    """The pages that do not say what the code says."""
    return [name for name, page in PAGES.items() if not _is_current(ROOT / name, page())]


def _is_current(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


def main(argv: list[str]) -> int:
    """Write or check; returns the exit code."""
    names = outdated()
    for name in names:
        if "--check" in argv:
            print(f"{name} is out of date: run python -m scripts.generate_docs", file=sys.stderr)
        else:
            (ROOT / name).write_text(PAGES[name](), encoding="utf-8")
            print(f"wrote {name}")
    return 1 if names and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
