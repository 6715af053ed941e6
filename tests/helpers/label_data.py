"""Real labels for tests: read where they are, skipped by name where they are not, never part of the repository."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest


def folder(name: str, file: str) -> Path:
    """A folder of RATCHET_DATA, or of ../shared/data beside the checkout; the test is skipped where it is absent."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    found = Path(os.environ.get("RATCHET_DATA") or beside) / name
    if not (found / file).is_file():
        pytest.skip(f"{name}/{file} is not here; set RATCHET_DATA to the folder that holds {name}")
    return found


def pandalm() -> list[dict[str, Any]]:
    name = "testset-v1.dev.json.gz"
    rows: list[dict[str, Any]] = json.loads(gzip.decompress((folder("pandalm", name) / name).read_bytes()))
    return rows


def hh_file() -> Path:
    name = "harmless-base.test.dev.jsonl.gz"
    return folder("hh-rlhf", name) / name


def ukp() -> list[dict[str, Any]]:
    with gzip.open(folder("ukp-convarg1", "votes.jsonl.gz") / "votes.jsonl.gz") as file:
        return [json.loads(line) for line in file]


def ukp_votes() -> list[tuple[str, str, str]]:
    """Pair, worker and vote (a1, a2 or equal) of each vote."""
    return [(row["pair"], vote["worker"], vote["vote"]) for row in ukp() for vote in row["votes"]]
