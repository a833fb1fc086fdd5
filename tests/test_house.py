"""The house: three wings, and in each the modules in an order, in which every import points back."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WINGS = ("qmvae_core", "qmvae_study", "qmvae_neighbours")  # each may import those before it


def order_of(package: Path) -> list[str]:
    """The names of a package's modules in the order that its docstring gives."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8")))
    said = re.search(r"Read the modules in this order: ([\w,;\s]+)\.", text)
    assert said, f"the docstring of {package.name} gives no order"
    return re.split(r"[,;]\s+", said[1])


def places(package: Path, before: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Full name of each module of a package -> its place; a package stands behind its modules."""
    name = ".".join(package.relative_to(ROOT).parts)
    found = {}
    for number, module in enumerate(order_of(package)):
        place = (*before, number)
        if (package / module).is_dir():
            found |= places(package / module, place)
        else:
            found[f"{name}.{module}"] = place
    found[name] = (*before, len(found) + 1)
    if (package / "__main__.py").exists():
        found[f"{name}.__main__"] = (*before, len(found) + 2)
    return found


PLACES = {name: place for number, wing in enumerate(WINGS) for name, place in places(ROOT / wing, (number,)).items()}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for wing in WINGS
    for path in (ROOT / wing).rglob("*.py")
}


def imported(path: Path, modules: dict[str, object]) -> set[str]:
    """The modules of ours that a file imports, wherever it does, by full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            each = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in each}
    return {name for name in found if name in modules}


def test_every_module_has_a_place_and_every_place_a_module():
    assert PLACES.keys() == MODULES.keys()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_back(name):
    later = {other for other in imported(MODULES[name], MODULES) - {name} if PLACES[other] > PLACES[name]}
    assert not later, f"{name} imports what comes after it: {sorted(later)}"


def test_the_library_is_slim():
    """Lines that are neither blank nor comment."""
    lines = [line.strip() for path in (ROOT / "qmvae_core").rglob("*.py") for line in path.read_text().splitlines()]
    assert sum(bool(line) and not line.startswith("#") for line in lines) <= 3150


def test_an_arrow_up_is_seen(tmp_path):
    """The check on a file that imports in each of the ways there are."""
    file = tmp_path / "module.py"
    file.write_text(
        "import qmvae_study.plan\nfrom qmvae_core import training\ndef f():\n    from qmvae_neighbours.vae import VAE\n"
    )
    assert imported(file, MODULES) == {"qmvae_study.plan", "qmvae_core.training", "qmvae_neighbours.vae"}
    assert PLACES["qmvae_core.gaussians"] < PLACES["qmvae_core.models.qmvae"] < PLACES["qmvae_core.models"]
    assert PLACES["qmvae_core.models"] < PLACES["qmvae_core.training"] < PLACES["qmvae_study.evidence.folder"]
    assert PLACES["qmvae_study.plan"] < PLACES["qmvae_study.__main__"] < PLACES["qmvae_neighbours.vae"]


RESULTS = "qmvae_study.report.claims, qmvae_study.report.figures, qmvae_study.report.pages"


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("qmvae_core.models", {"pandas", "matplotlib", "papermill", "sklearn", "scipy", "torchvision", "qmvae_study"}),
        ("qmvae_study.report.intervals", {"torch", "pandas", "matplotlib"}),
        (f"{RESULTS}, qmvae_study.evidence.notebooks", {"torch", "torchvision", "sklearn", "papermill"}),
    ],
)
def test_what_is_imported_comes_without_what_it_does_not_need(modules, heavy):
    """In a process of its own, which has imported nothing yet: the models, and what the chapters of results import."""
    code = f"import sys, {modules}; sys.exit(', '.join({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.stderr.strip()  # where the names of what came along would stand
