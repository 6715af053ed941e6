"""Where things lie: under `--home` the artifacts, the views and, unless `--ledger` puts it elsewhere, the ledger."""

from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.artifacts import ArtifactStore
from orchestrator.errors import StorageError
from orchestrator.store.database import sqlite_file
from orchestrator.store.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Home:
    root: Path
    ledger_at: str | None = field(default=None, repr=False)
    """A file or a URL, which may hold a password; None: a file of this folder."""

    @property
    def database(self) -> str | Path:
        return self.root / "ledger.db" if self.ledger_at is None else self.ledger_at

    @property
    def artifact_root(self) -> Path:
        return self.root / "artifacts"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def progress(self) -> Path:
        """Where workers say how far they are, for whoever watches."""
        return self.root / "progress"

    def told(self, campaign: str) -> Path:
        """Which wait of a campaign people were told of last."""
        return self.root / "told" / campaign

    @property
    def tokens(self) -> Path:
        """What this user's terminal commands prove by who speaks, one file a person."""
        return self.root / "tokens"

    def create(self) -> None:
        """Make the folders.

        Raises:
            StorageError: the place cannot be written to.
        """
        try:
            for folder in (self.root, self.artifact_root, self.reports, self.logs, self.progress):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.root}: {error.strerror}; choose another place with --home") from error

    def exists(self) -> bool:
        """Whether there may be campaigns: a server's ledger is always taken to be there.

        Raises:
            ConfigError: the ledger's URL cannot be read.
        """
        file = sqlite_file(self.database)
        return file is None or file.exists()

    def ledger(self) -> Ledger:
        return Ledger.open(self.database)

    def artifacts(self) -> ArtifactStore:
        """This host's artifacts and, where the ledger is a server's, the texts that its database keeps."""
        return ArtifactStore(self.artifact_root, elsewhere=None if sqlite_file(self.database) else self._fetch)

    def _fetch(self, digest: str, into: ArtifactStore) -> None:
        with self.ledger() as ledger:
            ledger.texts.fetch(digest, into)
