"""pyproject.toml, the lock, environment.yml and the imports of the library agree on what is installed."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [Requirement(line) for lines in (PROJECT["dependencies"], *EXTRAS.values()) for line in lines]
LOCK_LINES = [line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
WINGS = ("qmvae_core", "qmvae_study", "qmvae_neighbours")
MODULES = sorted(path for wing in WINGS for path in (ROOT / wing).rglob("*.py"))


def names(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


def top_level_imports(tree: ast.AST, inside_functions: bool) -> set[str]:
    """The first names of absolute imports: those made on import of the module, or with inside_functions all of them."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
        elif inside_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found |= top_level_imports(node, inside_functions)
    return found


def undeclared(module: Path, declared: set[str], inside_functions: bool, providers: Mapping) -> set[str]:
    imports = top_level_imports(ast.parse(module.read_text(encoding="utf-8")), inside_functions)
    third_party = imports - sys.stdlib_module_names - set(WINGS)
    return {name for name in third_party if not {canonicalize_name(p) for p in providers.get(name, [name])} & declared}


def test_the_lock_gives_exact_versions_and_no_address():
    inexact = [line for line in LOCK_LINES if not re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; .+)?", line)]
    assert inexact == []


def test_the_lock_names_each_package_once():
    locked = [canonicalize_name(Requirement(line).name) for line in LOCK_LINES]
    assert len(locked) == len(set(locked))


def test_what_pyproject_declares_is_locked_at_a_version_that_satisfies_it():
    locked = {canonicalize_name(r.name): r for r in map(Requirement, LOCK_LINES)}
    for requirement in DECLARED:
        pinned = locked[canonicalize_name(requirement.name)]
        (specifier,) = pinned.specifier
        assert pinned.marker is None, f"{requirement} is a direct dependency, installed everywhere"
        assert requirement.specifier.contains(Version(specifier.version)), f"{pinned} against {requirement}"


def test_the_environment_file_refers_to_the_project_with_every_extra_and_to_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (from_pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert "-c requirements.lock" in from_pip
    (project,) = (line for line in from_pip if line.startswith("-e "))
    folder, extras = re.fullmatch(r"-e (.+)\[(.+)\]", project).groups()
    assert folder == "."
    assert set(extras.split(",")) == set(EXTRAS)
    assert len(from_pip) == 2, "versions belong into pyproject.toml and the lock"


def test_binder_gets_what_the_library_and_the_notebooks_need():
    environment = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text(encoding="utf-8"))
    python, *others = environment["dependencies"]
    assert python.startswith("python=")
    of_conda = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base"}
    wanted = [Requirement(line) for line in (*PROJECT["dependencies"], *EXTRAS["notebooks"])]
    assert set(others) == {f"{of_conda.get(each.name, each.name)}{each.specifier}" for each in wanted}


def test_the_environment_file_asks_for_a_python_that_the_project_allows():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (python,) = (entry for entry in environment["dependencies"] if str(entry).startswith("python"))
    version = re.fullmatch(r"python=(\d+\.\d+)", python).group(1)
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(version)


def test_what_a_module_imports_is_declared():
    """On its import a core dependency, inside a function one of an extra as well."""
    core, everything = names(PROJECT["dependencies"]), {canonicalize_name(r.name) for r in DECLARED}
    providers = importlib.metadata.packages_distributions()
    found = {path: undeclared(path, core, False, providers) | undeclared(path, everything, True, providers)
             for path in MODULES}  # fmt: skip
    assert not {path: names for path, names in found.items() if names}


def test_an_undeclared_import_is_found(tmp_path):
    module = tmp_path / "module.py"
    module.write_text("import torch\nif True:\n    import yaml.nodes\ndef f():\n    from distributed import Client\n")
    providers = {"yaml": ["PyYAML"], "torch": ["torch"]}
    assert undeclared(module, {"torch"}, False, providers) == {"yaml"}
    assert undeclared(module, {"torch", "pyyaml"}, True, providers) == {"distributed"}
