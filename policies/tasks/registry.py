"""From a name in a campaign file to a task: built in, `package.module:Class` or `path/to/file.py:Class`."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from policies.errors import PolicyError, TaskError
from policies.tasks.base import Task

BUILT_IN: dict[str, str] = {
    "memo": "policies.tasks.memo:Memo",
    "sums": "policies.tasks.sums:Sums",
    "cue": "policies.tasks.cue:Cue",
    "text": "policies.tasks.text:Text",
}


_TASK: Final = ("kind", "corpus", "prompts", "prompt_capacity", "gold", "raters")


def load_task(kind: str, options: dict[str, Any] | None = None) -> Task:
    """Make the task that `kind` names, with `options` as its constructor's keyword arguments.

    Raises:
        TaskError: if it is unknown, cannot be imported, refuses an option, or lacks a member of `Task`.
    """
    task: Task = make(BUILT_IN.get(kind, kind), options or {}, what="task", members=_TASK, known=sorted(BUILT_IN))
    return task


def make(name: str, options: Mapping[str, Any], *, what: str, members: Sequence[str], known: Sequence[str] = ()) -> Any:
    """Make an object of the class that `package.module:Class` or `path/file.py:Class` names.

    Args:
        options: the constructor's keyword arguments.
        what: in messages, what the object is to be.
        members: what it must have; policies/tasks/base.py says what each is for.
        known: names that are not of this form, for the message on an unknown one.

    Raises:
        TaskError: the class cannot be had, refuses the options, fails as it is made, or lacks a member.
        PolicyError: whatever a constructor of ours says.
    """
    made = load_class(name, what=what, known=known)
    shown = f"{what} {name!r}"
    if not callable(made):
        raise TaskError(f"{shown}: {name.rpartition(':')[2]} is no class, but {made!r:.80}")
    try:
        inspect.signature(made).bind(**options)
    except TypeError as error:
        raise TaskError(f"{shown}: {error}; it takes {inspect.signature(made)}") from None
    except ValueError:
        pass  # some built-in classes have no signature; the call itself will tell
    try:
        plugin = made(**options)
    except PolicyError:
        raise
    except Exception as error:
        raise TaskError(f"{shown} cannot be made: {_told(error)}") from error
    if missing := [member for member in members if not hasattr(plugin, member)]:
        raise TaskError(f"{shown} lacks {', '.join(missing)}; see policies/tasks/base.py")
    return plugin


def load_class(name: str, *, what: str, known: Sequence[str] = ()) -> Any:
    """Import the class that `package.module:Class` or `path/file.py:Class` names.

    Raises:
        TaskError: naming `what`, if there is no such thing.
    """
    module_name, colon, class_name = name.rpartition(":")
    if not colon or not module_name:
        hint = "".join(f"{one}, " for one in known)
        raise TaskError(f"{what} {name!r} is unknown; use {hint}package.module:Class or path/file.py:Class")
    try:
        module = _import_file(Path(module_name)) if module_name.endswith(".py") else _import_module(module_name)
    except TaskError as error:
        raise TaskError(f"{what}: {error}") from error
    if not hasattr(module, class_name):
        raise TaskError(f"{what} {name!r}: {module_name} has no class {class_name}")
    return getattr(module, class_name)


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise TaskError(
                f"there is no module {error.name}; install it, or name a file: path/file.py:Class"
            ) from error
        raise TaskError(f"{name} cannot be imported: {_told(error)}") from error


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
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception | SystemExit):
            raise TaskError(f"{path} cannot be imported: {_told(error)}") from error
        raise
    return module


def _told(error: BaseException) -> str:
    """What went wrong in a stranger's code, and in which file and line of it."""
    if isinstance(error, SyntaxError):
        return f"{Path(error.filename or '?').name}, line {error.lineno}: {error.msg}"
    if isinstance(error, ModuleNotFoundError):
        what = f"the module {error.name} is not installed"
    else:
        what = f"{type(error).__name__}{f': {error}' if str(error) else ''}"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if frame.filename != __file__ and not frame.filename.startswith("<frozen")]
    return f"{Path(theirs[-1].filename).name}, line {theirs[-1].lineno}: {what}" if theirs else what
