"""MLflow's verbs made repeatable, its client, and the making of its database.

The only file that imports mlflow, and only once something is mirrored: the import alone takes two seconds. Nothing
here knows an event or decides what is shown; mirror.py, drift.py and tracker.py call it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from orchestrator.tracking.tags import ATTEMPT, CAMPAIGN, LEDGER, shown_tags

EXPERIMENT: Final = "ratchet"
ALIAS: Final = "approved"

_POINTS_PER_CALL: Final = 900
"""MLflow takes a thousand things at a time, of which a hundred may be tags."""
_PARAMS_PER_CALL: Final = 100
_LONGEST_PARAM: Final = 6000


class View:
    """MLflow's client with verbs that may be repeated: what is there already is found, not made again."""

    def __init__(self, client: Any, artifact_location: str | None) -> None:
        self.client = client
        self._artifact_location = artifact_location
        self._experiment: str | None = None

    @property
    def experiment(self) -> str:
        if self._experiment is None:
            found = self.client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                try:
                    self._experiment = self.client.create_experiment(EXPERIMENT, self._artifact_location)
                except Exception as error:
                    if not _says(error, "RESOURCE_ALREADY_EXISTS"):
                        raise
                    found = self.client.get_experiment_by_name(EXPERIMENT)  # another process was quicker
            if found is not None:
                if found.lifecycle_stage == "deleted":
                    self.client.restore_experiment(found.experiment_id)
                self._experiment = found.experiment_id
        assert self._experiment is not None
        return self._experiment

    def find_runs(self, tags: Mapping[str, str]) -> list[Any]:
        return list(self.client.search_runs([self.experiment], _where(tags), max_results=5000))

    def find_run(self, tags: Mapping[str, str]) -> Any | None:
        """The run with these tags; where no attempt is asked for, the campaign's own."""
        runs = [run for run in self.find_runs(tags) if run.data.tags.get(ATTEMPT) == tags.get(ATTEMPT)]
        return min(runs, key=lambda run: run.info.start_time) if runs else None

    def run(self, name: str, tags: Mapping[str, str], *, at: datetime, more: Mapping[str, str] | None = None) -> str:
        """Find the run by `tags`, or create it with `more` of them."""
        found = self.find_run(tags)
        if found is None:
            found = self.client.create_run(
                self.experiment, start_time=_milliseconds(at), tags={**tags, **(more or {})}, run_name=name
            )
        run_id: str = found.info.run_id
        return run_id

    def end(self, run: str, status: str, *, at: datetime) -> None:
        self.client.set_terminated(run, status, _milliseconds(at))

    def points(
        self, numbers: Mapping[str, float | None], *, step: int, at: datetime, model: str | None = None
    ) -> list[Any]:
        """Metrics at the event's own time. What is unknown or infinite has none: MLflow makes 1e308 of infinity."""
        from mlflow.entities import Metric

        time_ms = _milliseconds(at)
        return [
            Metric(key, float(value), time_ms, step, model_id=model)
            for key, value in numbers.items()
            if value is not None and math.isfinite(value)
        ]

    def log(self, run: str, points: Sequence[Any], tags: Mapping[str, str] | None = None) -> None:
        from mlflow.entities import RunTag

        marks = [RunTag(key, value) for key, value in shown_tags(tags or {}).items()]
        for start in range(0, max(len(points), 1), _POINTS_PER_CALL):
            batch = points[start : start + _POINTS_PER_CALL]
            self.client.log_batch(run, metrics=batch, tags=marks if start == 0 else [], synchronous=True)

    def params(self, run: str, settings: Mapping[str, Any]) -> None:
        """Nested settings, as parameters `a.b.c`."""
        from mlflow.entities import Param

        values = [Param(key, value[:_LONGEST_PARAM]) for key, value in _flat(settings).items()]
        for start in range(0, len(values), _PARAMS_PER_CALL):
            self.client.log_batch(run, params=values[start : start + _PARAMS_PER_CALL], synchronous=True)

    def table(self, run: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """What `log_table` writes, except that repeating it replaces the rows instead of appending them."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        data = [[row.get(column) for column in columns] for row in rows]
        self.client.log_text(run, json.dumps({"columns": columns, "data": data}), name)
        self.client.set_tag(run, "mlflow.loggedArtifacts", json.dumps([{"path": name, "type": "table"}]))

    def dataset(self, run: str, name: str, digest: str, rows: Sequence[Mapping[str, Any]]) -> None:
        import pandas as pd  # type: ignore[import-untyped]
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.entities import DatasetInput, InputTag

        frame = pd.DataFrame([{str(key): _cell(value) for key, value in row.items()} for row in rows])
        source = CodeDatasetSource(tags={"ratchet.label_set": digest})
        dataset = from_pandas(frame, source=source, name=name, digest=digest[:36])  # MLflow's longest
        tags = [InputTag("mlflow.data.context", "reward_model")]
        self.client.log_inputs(run, datasets=[DatasetInput(dataset._to_mlflow_entity(), tags)])

    def candidate(self, name: str, run: str, tags: Mapping[str, str], more: Mapping[str, str]) -> str:
        """A logged model without weights: `mlflow.create_external_model`, but on this client, not the global one."""
        from mlflow.entities import LoggedModelStatus

        found = self.client.search_logged_models([self.experiment], _where(tags), max_results=1)
        if found:
            model = found[0]
        else:
            every = {**tags, **more, "mlflow.model.isExternal": "true"}
            model = self.client.create_logged_model(self.experiment, name, run, tags=every, model_type="policy")
        if model.status != LoggedModelStatus.READY:
            model = self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        model_id: str = model.model_id
        return model_id

    def registered_model(self, campaign: str, ledger: str, *, create: bool) -> str | None:
        """Name of the campaign's registered model; another campaign of that name keeps its own."""
        for name in (campaign, f"{campaign}-{ledger[:8]}"):
            try:
                found = self.client.get_registered_model(name)
            except Exception as error:
                if not _says(error, "RESOURCE_DOES_NOT_EXIST"):
                    raise
                if not create:
                    continue
                self.client.create_registered_model(name, tags={LEDGER: ledger, CAMPAIGN: campaign})
                return name
            if found.tags.get(LEDGER) == ledger:
                return name
        return None

    def find_version(self, model: str, tags: Mapping[str, str]) -> str | None:
        versions = self.client.search_model_versions(f"name='{model}'")
        found = [int(v.version) for v in versions if all(v.tags.get(key) == value for key, value in tags.items())]
        return str(min(found)) if found else None

    def version(self, model: str, run: str, candidate: str | None, tags: Mapping[str, str]) -> str:
        found = self.find_version(model, tags)
        if found is not None:
            return found
        # The attempt's run holds the candidate's digests. A server takes neither local paths as a source, nor a
        # logged model's id beside a run's source: hence a tag.
        every = {**tags, "ratchet.logged_model": candidate or ""}
        made = self.client.create_model_version(model, f"runs:/{run}/candidate", run, tags=every, await_creation_for=0)
        return str(made.version)

    def aliased(self, model: str) -> str | None:
        version = self.client.get_registered_model(model).aliases.get(ALIAS)
        return None if version is None else str(version)


def mlflow_client(uri: str) -> Any:
    """A client for this address that leaves the process's global MLflow settings alone."""
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_CONFIGURE_LOGGING": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # The default waits minutes for a server that is away. The follower retries by itself.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.ERROR)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def create_database(path: Path) -> None:
    """Make MLflow's tables under another name first: a crash in the middle would leave a database it cannot open."""
    if path.exists():
        return
    unfinished = path.with_name("unfinished.db")
    unfinished.unlink(missing_ok=True)
    mlflow_client(f"sqlite:///{unfinished}").search_experiments(max_results=1)
    unfinished.rename(path)


def safe_key(text: str) -> str:
    """MLflow keys look like paths; what a person wrote must not become one."""
    return re.sub(r"[^\w\-. ]", "_", text).strip(". ")[:200] or "_"


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Nested settings as `a.b.c: text`."""
    if isinstance(value, dict) and value:
        flat: dict[str, str] = {}
        for key, item in value.items():
            name = safe_key(str(key))
            flat.update(_flat(item, f"{path}.{name}" if path else name))
        return flat
    return {path: value if isinstance(value, str) else json.dumps(value)}


def _where(tags: Mapping[str, str]) -> str:
    """MLflow's filter language; the values are digests, places and campaign names, which hold no quotes."""
    return " AND ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())


def _says(error: Exception, code: str) -> bool:
    return getattr(error, "error_code", None) == code


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _cell(value: Any) -> str | float:
    """A value that gives a column one type, whatever its rows hold."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return value if isinstance(value, str) else json.dumps(value)
