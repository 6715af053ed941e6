"""The texts of comparisons, as people are shown them. Untrusted."""

from dataclasses import dataclass

from orchestrator.artifacts import ArtifactStore
from orchestrator.core.records import Digest
from orchestrator.store.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Comparison:
    """In the order in which it was sealed."""

    prompt: str
    response_1: str
    response_2: str


class Comparisons:
    """One sealed queue's texts."""

    def __init__(self, artifacts: ArtifactStore, digest: Digest) -> None:
        self._rows = {
            row["item"]: Comparison(str(row["prompt"]), str(row["response_1"]), str(row["response_2"]))
            for row in artifacts.read_lines(digest)
        }

    def row(self, item: int) -> Comparison:
        return self._rows[item]


def comparisons_of(ledger: Ledger, artifacts: ArtifactStore, digest: Digest) -> Comparisons:
    return Comparisons(artifacts, digest)
