"""What is installed: pyproject.toml, the lock, environments, the workflow and the library's imports agree on it."""

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
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace(" \\\n    ", "\t").splitlines()
LOCKED = [line.split("\t") for line in LOCK if line[:1] != "#"]  # a requirement, and the hashes of its files
LOCK_LINES = [line for line, *_ in LOCKED]
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


def test_every_file_that_may_be_installed_is_held_against_a_hash():
    hashed = re.compile(r"--hash=sha256:[0-9a-f]{64}")
    assert [line for line, *hashes in LOCKED if not hashes or not all(map(hashed.fullmatch, hashes))] == []


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


def test_conda_and_binder_give_a_python_and_make_which_installs_the_lock():
    for path in ("environment.yml", ".binder/environment.yml"):
        environment = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
        assert environment["dependencies"] == ["python=3.11", "make"]  # versions belong into the lock
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains("3.11")
    assert "make setup" in (ROOT / ".binder" / "postBuild").read_text(encoding="utf-8").splitlines()


# The workflow

WORKFLOW = ROOT / ".github" / "workflows" / "book.yml"
JOBS = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]


def test_the_workflow_names_each_action_by_its_commit_and_says_which_version_that_is():
    uses = re.findall(r"uses: (.*)", WORKFLOW.read_text(encoding="utf-8"))
    assert len(uses) == sum("uses" in step for step in STEPS)
    assert [use for use in uses if not re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", use)] == []
    assert len({use.partition("@")[0] for use in uses}) == len(set(uses)), "one commit of each"


def test_no_job_of_the_workflow_keeps_credentials_or_has_rights_that_it_was_not_given():
    assert yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["permissions"] == {}
    checkouts = [step for step in STEPS if "actions/checkout" in step.get("uses", "")]
    assert [step for step in checkouts if step["with"] != {"persist-credentials": False}] == []
    writing = {name for name, job in JOBS.items() if "write" in job["permissions"].values()}
    assert writing == {"launch", "publish"}
    asked = {name for name, job in JOBS.items() if "pull_request" in job.get("if", "")}
    assert writing - asked == {"publish"}
    assert JOBS["publish"]["needs"] == "launch"  # so it waits for what is not done for a pull request
    assert all(len(job["permissions"]) == 1 or name == "publish" for name, job in JOBS.items())


def test_the_workflow_asks_for_known_holes_in_what_is_locked():
    assert "make audit" in [step.get("run") for step in JOBS["audit"]["steps"]]


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
