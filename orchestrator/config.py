"""From a campaign file to settings: YAML in, a frozen `CampaignSettings` out, or one line that says what is wrong.

All defaults and ranges live in `orchestrator.core.settings`; this module only reads, points at mistakes and makes
file names absolute, so that a campaign resumes from any directory.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from orchestrator.core.settings import CampaignSettings
from orchestrator.errors import ConfigError
from orchestrator.yaml_loader import apply_overrides, load_yaml, nearest_key

_WANTED: Final = {
    "bool_type": "wants true or false",
    "int_type": "wants a whole number, as 5 without quotes",
    "float_type": "wants a number, without quotes",
    "string_type": 'wants text; "quote" what YAML takes for something else',
    "dict_type": "wants a section of `key: value` lines",
    "model_type": "wants a section of `key: value` lines",
    "tuple_type": "wants a list",
}
"""What a value of another type should have been, by pydantic's name of the mistake."""


def load_settings(path: Path, overrides: Sequence[str] = (), *, name: str | None = None) -> CampaignSettings:
    """Read a campaign file, apply `--set` overrides and `--name`, and validate the whole.

    Raises:
        ConfigError: naming the place and, for an unknown key, the nearest known one.
    """
    data = apply_overrides(load_yaml(path), overrides)
    if name is not None:
        data = {**data, "name": name}
    return parse_settings(data, source=str(path))


def load_comparison(
    path: Path,
    model_a: str,
    model_b: str,
    *,
    reward_model: str | None = None,
    overrides: Sequence[str] = (),
    name: str | None = None,
) -> CampaignSettings:
    """Read a campaign file for the comparison of two existing models: `base`, `candidate` and `protocol` are replaced,
    and of `phase` only `max_response_tokens` stays. Overrides come last.

    Raises:
        ConfigError: as `load_settings`, also for mistakes in what is replaced.
    """
    file = load_yaml(path)
    promised = _section(file, "candidate").get("reward_model") if reward_model is None else reward_model
    replaced = {
        "name": _comparison_name(model_a, model_b) if name is None else name,
        "base": {"model": model_a},
        "candidate": {"model": model_b, "reward_model": promised},
        "protocol": {"stages": 1, "attempts": 1},
        "phase": {key: said for key, said in _section(file, "phase").items() if key == "max_response_tokens"},
    }
    data = apply_overrides({**file, **replaced}, overrides)
    as_written = {key: file.get(key, {}) for key in ("protocol", "phase")}
    parse_settings({**data, "candidate": None, **as_written}, source=str(path))
    return parse_settings(data, source=str(path))


def _section(file: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A section of a file; nothing where it is none, which the validation tells."""
    section = file.get(key)
    return section if isinstance(section, dict) else {}


def _comparison_name(model_a: str, model_b: str) -> str:
    """`new-against-old`: a name of a campaign, whatever the models are called."""
    a, b = (re.sub(r"[^a-z0-9_.]+", "-", Path(model).name.lower()).strip("-._")[:25] for model in (model_a, model_b))
    return f"{b or 'candidate'}-against-{a or 'approved'}"


def parse_settings(data: Mapping[str, Any], *, source: str) -> CampaignSettings:
    try:
        settings = CampaignSettings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_mistake(error)}") from error
    return _with_absolute_paths(settings, source)


def input_digests(settings: CampaignSettings) -> dict[str, str]:
    """SHA-256 of every file that the campaign reads as it goes: the task's, the check items, and plug-ins' code.

    Raises:
        ConfigError: one cannot be read.
    """
    named = {f"task.files.{role}": file for role, file in settings.task.files.items()}
    checks = settings.feedback.checks
    if checks is not None and checks.file is not None:
        named["feedback.checks.file"] = checks.file
    plugins = {
        "task.kind": settings.task.kind,
        "feedback.rater": settings.feedback.rater,
        "gate.audit.evaluator": settings.gate.audit.evaluator,
    }
    plugins |= {f"task.options.{key}": value for key, value in settings.task.options.items() if isinstance(value, str)}
    for key, plugin in plugins.items():
        file, colon, _ = plugin.rpartition(":")
        if colon and file.endswith(".py"):
            named[key] = file
    digests = {}
    for key, file in named.items():
        try:
            with open(file, "rb") as opened:
                digests[key] = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise ConfigError(f"{key}: {file}: {error.strerror}") from error
    return digests


def _with_absolute_paths(settings: CampaignSettings, source: str) -> CampaignSettings:
    files = {role: _existing(file, f"{source}: task.files.{role}") for role, file in settings.task.files.items()}
    kind = _absolute_plugin(settings.task.kind, f"{source}: task.kind")
    options = {
        key: _absolute_plugin(value, f"{source}: task.options.{key}") if isinstance(value, str) else value
        for key, value in settings.task.options.items()
    }
    task = settings.task.model_copy(update={"files": files, "kind": kind, "options": options})
    rater = _absolute_plugin(settings.feedback.rater, f"{source}: feedback.rater")
    checks = settings.feedback.checks
    if checks is not None and checks.file is not None:
        checks = checks.model_copy(update={"file": _existing(checks.file, f"{source}: feedback.checks.file")})
    feedback = settings.feedback.model_copy(update={"rater": rater, "checks": checks})
    auditor = _absolute_plugin(settings.gate.audit.evaluator, f"{source}: gate.audit.evaluator")
    gate = settings.gate.model_copy(update={"audit": settings.gate.audit.model_copy(update={"evaluator": auditor})})
    base = settings.base
    if base.model is not None:
        base = base.model_copy(update={"model": _model(base.model, f"{source}: base.model")})
    candidate = settings.candidate
    if candidate is not None:
        given = {"model": candidate.model, "reward_model": candidate.reward_model}
        here = {key: _model(model, f"{source}: candidate.{key}") for key, model in given.items() if model is not None}
        candidate = candidate.model_copy(update=here)
    changed = {"task": task, "base": base, "candidate": candidate, "feedback": feedback, "gate": gate}
    return settings.model_copy(update=changed)


def _existing(file: str, where: str) -> str:
    path = Path(file).expanduser()
    if not path.exists():
        raise ConfigError(f"{where}: no such file or folder: {file}")
    return str(path.resolve())


def _model(model: str, where: str) -> str:
    """A folder made absolute; a hub id or a digest unchanged."""
    return _existing(model, where) if Path(model).exists() or _looks_like_path(model) else model


def _looks_like_path(text: str) -> bool:
    return text.startswith(("/", "./", "../", "~"))


def _absolute_plugin(kind: str, where: str) -> str:
    """`path/to/file.py:Class` with the path made absolute; anything else unchanged."""
    file, colon, name = kind.rpartition(":")
    if not colon or not file.endswith(".py"):
        return kind
    return f"{_existing(file, where)}:{name}"


def _first_mistake(error: ValidationError) -> str:
    mistakes = error.errors(include_url=False)
    first = mistakes[0]
    where = ".".join(str(part) for part in first["loc"]) or "the file"
    if first["type"] == "extra_forbidden":
        what = f"unknown key{_suggestion(first['loc'])}"
    elif first["type"] == "missing":
        what = "missing; every campaign needs it"
    else:
        what = _WANTED.get(first["type"], first["msg"].removeprefix("Value error, ").replace("Input should", "should"))
        if first["type"] in _WANTED or not isinstance(first["input"], Mapping):
            what += f" (got {_short(first['input'])})"
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return f"{where}: {what}{more}"


def _short(value: Any) -> str:
    """The value as YAML has it, or its beginning."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _suggestion(location: Sequence[int | str]) -> str:
    model = _model_at(location[:-1])
    if model is None:
        return ""
    nearest = nearest_key(str(location[-1]), list(model.model_fields))
    return f"; did you mean {nearest!r}?" if nearest else f"; known keys: {', '.join(model.model_fields)}"


def _model_at(location: Sequence[int | str]) -> type[BaseModel] | None:
    model: type[BaseModel] = CampaignSettings
    for part in location:
        field = model.model_fields.get(str(part))
        inner = next(_models_in(field.annotation), None) if field else None
        if inner is None:
            return None
        model = inner
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models_in(part)
