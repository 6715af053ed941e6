"""What an artifact's folder must hold, and the walk that finds what it does hold."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from orchestrator.core.canonical import canonical_json
from orchestrator.core.verification import Problem

MANIFEST: Final = "manifest.json"


class FileEntry(BaseModel):
    """What a manifest says of one file."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Manifest(BaseModel):
    """The kind of an artifact, its files by relative POSIX name, and facts that follow from its contents.

    No time, path or host: the same work must give the same manifest, whose digest is the artifact's name.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    format: Literal[1] = 1
    kind: str
    files: dict[str, FileEntry]
    meta: dict[str, JsonValue]

    @field_validator("files")
    @classmethod
    def _names_stay_inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or str(path) != name or name in (".", MANIFEST):
                raise ValueError(f"the file name {name!r} is not allowed")
        if not files:
            raise ValueError("an artifact needs a file")
        return files

    def to_bytes(self) -> bytes:
        return canonical_json(self.model_dump(mode="json")).encode()


def walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every entry below a folder that is no directory, by relative name; links are not followed."""
    pending = [folder]
    while pending:
        directory = pending.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    pending.append(Path(entry.path))
                else:
                    yield Path(entry.path).relative_to(folder).as_posix(), info


def is_own_file(info: os.stat_result) -> bool:
    """Whether it is a plain file that has no second name elsewhere, under which it could be changed."""
    return stat.S_ISREG(info.st_mode) and info.st_nlink == 1


def file_problems(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    """Read every file, and name those that differ from the manifest, are missing, or do not belong there."""
    found = dict(walk(folder))
    found.pop(MANIFEST, None)
    for name in sorted(found.keys() | manifest.files.keys()):
        entry, info = manifest.files.get(name), found.get(name)
        if info is None:
            yield Problem(name, "the file is missing")
        elif entry is None:
            yield Problem(name, "the manifest does not list this file")
        elif not stat.S_ISREG(info.st_mode):
            yield Problem(name, "it is no plain file")
        elif info.st_size != entry.bytes:
            yield Problem(name, f"it has {info.st_size} bytes, the manifest says {entry.bytes}")
        elif (what := _content_problem(folder / name, entry)) is not None:
            yield Problem(name, what)


def _content_problem(path: Path, entry: FileEntry) -> str | None:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if digest != entry.sha256:
        return f"its SHA-256 is {digest[:12]}…, the manifest says {entry.sha256[:12]}…"
    return None
