"""Templates and static files, read once. Every template escapes, whatever its name."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from orchestrator.text import shown, visible

FOLDER: Final = Path(__file__).parent
SHOWN_CHARACTERS: Final = 20_000
"""Of one text on a page with others; the whole has a page of its own."""
SHOWN_LINES: Final = 400
"""Likewise: what stands below a response must stay within reach, also on a phone."""
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    body: bytes
    media_type: str
    url: str
    """Names the contents, so that they may be kept for ever."""


def read_static(folder: Path = FOLDER / "static") -> dict[str, StaticFile]:
    """The files of a folder, by name."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in _TYPES:
            body = path.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:16]
            files[path.name] = StaticFile(body, _TYPES[path.suffix], f"/static/{digest}/{path.name}")
    return files


class Templates:
    """The pages' templates, compiled once."""

    def __init__(self, static: dict[str, StaticFile]) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            auto_reload=False,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(
            static=lambda name: static[name].url,
            shown_length=shown_length,
            shown=shown,
        )
        self._environment.filters.update(visible=visible, counted=counted, grouped=_grouped)

    def render(self, name: str, values: dict[str, Any]) -> str:
        return self._environment.get_template(name).render(values)

    def page(self, name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        return HTMLResponse(self.render(name, values), status_code=status)


def shown_length(text: str) -> int:
    """How many characters of a text a page with others shows."""
    end = -1
    for _ in range(SHOWN_LINES):
        end = text.find("\n", end + 1, SHOWN_CHARACTERS)
        if end < 0:
            return SHOWN_CHARACTERS
    return end


def counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _grouped(digest: str) -> list[str]:
    """A digest in eights, to be read by people."""
    return [digest[start : start + 8] for start in range(0, len(digest), 8)]
