"""The texts that people read, and how they reach another host.

Where the ledger is a server's, the controller puts them into its database, and `Home.artifacts` finds them there.
Where it is a file, all use one store of artifacts and nothing is copied.
"""

import gzip
import json
import os
import zlib
from array import array
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Final

from orchestrator.artifacts import ROWS, ArtifactStore
from orchestrator.core import events as ev
from orchestrator.core.events import EventBody
from orchestrator.errors import ArtifactCorruptError, UsageError
from orchestrator.store.ledger import Ledger

_READ_BYTES: Final = 1024**2


def send_texts(ledger: Ledger, artifacts: ArtifactStore, body: EventBody) -> None:
    """Before an event is appended, put the texts that it names where other hosts find them."""
    match body:
        case _ if ledger.is_local:
            return
        case ev.ComparisonsDrawn():
            digest = body.comparisons
        case ev.Evaluated():
            digest = body.samples
        case _:
            return
    ledger.texts.publish(digest, artifacts.open(digest))


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is shown of one. Untrusted text."""

    prompt: str
    response_1: str
    response_2: str


class Comparisons:
    """Random access to a batch's comparisons, in little memory. Threads may share it.

    The artifact is one compressed stream, so it is unpacked once, into a file without a name beside the artifacts,
    which is gone with this object.
    """

    def __init__(self, artifacts: ArtifactStore, digest: str) -> None:
        """Verify the artifact and read through it once.

        Raises:
            ArtifactMissingError, ArtifactCorruptError: as `ArtifactStore.open`, or it holds no comparisons.
        """
        self._digest = digest
        self._begins = array("Q", [0])
        """Where each line begins, and where the last one ends; bytes."""
        packed = artifacts.open(digest) / ROWS
        with artifacts.staging() as folder, ExitStack() as on_failure:
            self._file: IO[bytes] = on_failure.enter_context((folder / "rows").open("w+b", buffering=0))
            try:
                self._unpack(packed)
            except (FileNotFoundError, gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise self._corrupt(str(error)) from error
            on_failure.pop_all()

    def __len__(self) -> int:
        return len(self._begins) - 1

    def row(self, item: int) -> Comparison:
        """The comparison at this place of the batch.

        Raises:
            UsageError: there is no such place.
            ArtifactCorruptError: it holds no comparison.
        """
        if not 0 <= item < len(self):
            raise UsageError(f"there is no comparison {item}; the batch has {len(self)}")
        begin, end = self._begins[item], self._begins[item + 1]
        try:
            row = json.loads(os.pread(self._file.fileno(), end - begin, begin))
            if row["item"] != item:
                raise ValueError(f"it is item {row['item']!r}")
            texts = [row[name] for name in ("prompt", "response_1", "response_2")]
            if not all(isinstance(text, str) for text in texts):
                raise TypeError("what should be text is not")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._corrupt(f"line {item + 1}: {error}") from error
        return Comparison(*texts)

    def close(self) -> None:
        self._file.close()

    def _unpack(self, packed: "os.PathLike[str]") -> None:
        at = 0
        with gzip.open(packed, "rb") as lines:
            while data := lines.read(_READ_BYTES):
                self._file.write(data)
                ends = -1
                while (ends := data.find(b"\n", ends + 1)) >= 0:
                    self._begins.append(at + ends + 1)
                at += len(data)
        if at != self._begins[-1]:
            raise self._corrupt("its last line has no end")

    def _corrupt(self, what: str) -> ArtifactCorruptError:
        return ArtifactCorruptError(
            f"artifact {self._digest[:12]}: these are no comparisons: {what}; run `ratchet checkpoint verify NAME`"
        )
