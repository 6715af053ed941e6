"""The arrows between packages, read from the imports: policies <- workers -> orchestrator.core <- orchestrator."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("orchestrator", "workers", "policies")
SHARED = ("orchestrator.core", "orchestrator.artifacts", "orchestrator.errors", "orchestrator.ports")
"""What workers may know of orchestrator."""
HEAVY = ("torch", "ray", "mlflow", "click", "sqlalchemy")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
CORE = sorted((ROOT / "orchestrator" / "core").glob("*.py"))


def imports_of(source: str) -> Iterator[str]:
    """Full names of all that a module imports, wherever in it: at the top, in functions, for type checking."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def wrong_arrows(path: Path, name: str) -> str | None:
    """Why the module at `path`, relative to the root, may not import `name`."""
    place = path.as_posix()
    if name.startswith("."):
        return "relative imports hide where an arrow leads"
    if place.startswith("policies/") and within(name, "orchestrator", "workers"):
        return "policies know nothing of who uses them"
    if place.startswith("workers/") and within(name, "orchestrator") and not within(name, *SHARED):
        return f"of orchestrator, workers know {', '.join(SHARED)} alone"
    if place.startswith("orchestrator/core/"):
        known = name.split(".")[0] in sys.stdlib_module_names
        if not known and not within(name, "orchestrator.core", "pydantic", "pydantic_core", "numpy", "scipy"):
            return "the core is pure: standard library, pydantic, numpy, scipy and itself"
    if within(name, "ray") and place != "workers/actors.py":
        return "only workers/actors.py imports ray"
    if within(name, "mlflow") and place != "orchestrator/tracking/mlflow_view.py":
        return "only orchestrator/tracking/mlflow_view.py imports mlflow"
    if within(name, "torch") and place.startswith("orchestrator/"):
        return "torch stays in policies and workers"
    return None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_imports_against_the_arrows(path: Path) -> None:
    wrong = [
        (name, why) for name in imports_of(path.read_text()) if (why := wrong_arrows(path.relative_to(ROOT), name))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("policies/phase.py", "from orchestrator.core import gate"),
        ("policies/phase.py", "def f():\n    import ray"),
        ("policies/phase.py", "import mlflow.entities as m"),
        ("workers/local.py", "from orchestrator import runner"),
        ("workers/local.py", "import orchestrator.store.ledger"),
        ("workers/local.py", "from ray.util import placement_group"),
        ("orchestrator/core/gate.py", "from orchestrator import errors"),
        ("orchestrator/core/gate.py", "import yaml"),
        ("orchestrator/core/gate.py", "from . import evidence"),
        ("orchestrator/runner.py", "import mlflow"),
        ("orchestrator/tracking/tracker.py", "import mlflow"),
        ("orchestrator/cli/main.py", "if TYPE_CHECKING:\n    import torch"),
    ],
)
def test_a_wrong_arrow_is_found(path: str, source: str) -> None:
    assert any(wrong_arrows(Path(path), name) for name in imports_of(source))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("policies/phase.py", "import torch\nfrom policies.batch import pad"),
        (
            "workers/local.py",
            "from orchestrator.core import work\nfrom orchestrator import artifacts, errors\nimport torch",
        ),
        ("workers/actors.py", "import ray"),
        ("orchestrator/core/gate.py", "import math\nfrom orchestrator.core import evidence\nimport numpy as np"),
        ("orchestrator/tracking/mlflow_view.py", "import mlflow"),
        ("orchestrator/assembly.py", "from workers import local"),
    ],
)
def test_a_right_arrow_is_let_through(path: str, source: str) -> None:
    assert not any(wrong_arrows(Path(path), name) for name in imports_of(source))


def heavy_after(statement: str, heavy: tuple[str, ...] = HEAVY) -> list[str]:
    """The heavy packages that a fresh interpreter holds after a statement."""
    report = f"import sys; print(*(name for name in {heavy!r} if name in sys.modules))"
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    done = run(
        [sys.executable, "-c", f"{statement}\n{report}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.split()


def test_the_core_brings_nothing_heavy_along() -> None:
    modules = [f"orchestrator.core.{path.stem}" for path in CORE if path.stem != "__init__"]
    assert len(modules) > 10
    assert heavy_after(f"import {', '.join(modules)}") == []


@pytest.mark.parametrize("module", SHARED)
def test_what_workers_share_brings_nothing_heavy_along(module: str) -> None:
    assert heavy_after(f"import {module}") == []


def test_the_command_line_answers_without_heavy_packages() -> None:
    """click is what it is made of; everything else waits until a command needs it."""
    if not (ROOT / "orchestrator" / "cli" / "main.py").exists():
        pytest.skip("orchestrator/cli/main.py is not there yet")
    ask_for_help = (
        "import contextlib, io, sys\n"
        "sys.argv = ['ratchet', '--help']\n"
        "from orchestrator.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "assert 'Usage' in shown.getvalue()\n"
    )
    assert set(heavy_after(ask_for_help)) <= {"click"}


def test_looking_at_a_campaign_loads_no_distributions() -> None:
    """scipy.stats alone is half a second; the few functions that anybody needs stand in scipy.special."""
    look = "import orchestrator.cli.campaign, orchestrator.gate_words, orchestrator.home, orchestrator.views"
    assert heavy_after(look, ("scipy.stats", "scipy.optimize")) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_init_files_are_empty(package: str) -> None:
    inits = list((ROOT / package).rglob("__init__.py"))
    assert inits
    assert [path.relative_to(ROOT).as_posix() for path in inits if path.read_text().strip()] == []
