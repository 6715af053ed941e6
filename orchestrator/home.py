"""Where things lie under `--home`: one folder holds the ledger, the artifacts and the views."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.artifacts import ArtifactStore
from orchestrator.errors import StorageError
from orchestrator.store.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Home:
    root: Path

    @property
    def database(self) -> Path:
        return self.root / "ledger.db"

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

    @property
    def is_local(self) -> bool:
        """Whether the ledger is a file in this folder."""
        return True

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
        return self.database.exists()

    def ledger(self) -> Ledger:
        return Ledger.open(self.database)

    def artifacts(self) -> ArtifactStore:
        return ArtifactStore(self.artifact_root)
