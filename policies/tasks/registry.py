"""From a name in a campaign file to a task: built in, `package.module:Class` or `path/to/file.py:Class`."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from policies.errors import TaskError
from policies.tasks.base import Task

BUILT_IN: dict[str, str] = {
    "memo": "policies.tasks.memo:Memo",
    "sums": "policies.tasks.sums:Sums",
    "cue": "policies.tasks.cue:Cue",
    "text": "policies.tasks.text:Text",
}


def load_task(kind: str, options: dict[str, Any] | None = None) -> Task:
    """Make the task that `kind` names, with `options` as its constructor's keyword arguments.

    Raises:
        TaskError: if it is unknown, cannot be imported, refuses an option, or lacks a member of `Task`.
    """
    made = load_class(BUILT_IN.get(kind, kind), what="task", known=sorted(BUILT_IN))
    options = options or {}
    try:
        inspect.signature(made).bind(**options)
    except TypeError as error:
        raise TaskError(f"task {kind}: {error}; it takes {inspect.signature(made)}") from None
    task = made(**options)
    if not isinstance(task, Task):
        missing = sorted(name for name in _members() if not hasattr(task, name))
        raise TaskError(f"task {kind}: {made.__name__} lacks {', '.join(missing)}; see policies/tasks/base.py")
    return task


def load_class(name: str, *, what: str, known: list[str] | None = None) -> Any:
    """Import the class that `package.module:Class` or `path/file.py:Class` names.

    Raises:
        TaskError: naming `what`, if there is no such thing.
    """
    module_name, colon, class_name = name.rpartition(":")
    if not colon or not module_name:
        hint = f"{', '.join(known)}, " if known else ""
        raise TaskError(f"{what} {name!r} is unknown; use {hint}package.module:Class or path/file.py:Class")
    module = _import_file(Path(module_name)) if module_name.endswith(".py") else _import_module(module_name)
    if not hasattr(module, class_name):
        raise TaskError(f"{what} {name!r}: {module_name} has no class {class_name}")
    return getattr(module, class_name)


def _members() -> list[str]:
    return ["kind", "corpus", "prompts", "prompt_capacity", "gold", "raters"]


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TaskError(f"cannot import {name}: {error}") from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TaskError(f"{path} does not exist; name the file of the plug-in relative to the working directory")
    # Registered under a name of its own: dataclasses look their module up in sys.modules, and two plug-ins
    # with the same file name must not meet.
    name = f"ratchet_plugin_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
