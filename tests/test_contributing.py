"""CONTRIBUTING.md names every file that a task touches: the files that know its example, and no others."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TASKS = dict(re.findall(r"^## Add an? (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
FILES = {task: set(re.findall(r"`([\w./]+\.(?:py|md|yml|ipynb))`", text)) for task, text in TASKS.items()}
# Tests that name one example among others: another one of its kind is no work there.
AMONG_OTHERS = re.compile(
    r"tests/test_.*|qmvae_neighbours/.*|book/(deviations|api(_\w+)?|explorer|notation)\.md|CONTRIBUTING.md"
)


in_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a checkout without git does not know its own files")


def knowing(example: str) -> set[str]:
    """The files of the code and of the book's frame in which a word stands, in any case of its letters."""
    found = subprocess.run(
        ["git", "grep", "-liw", "-e", example, "--", "*.py", "*.md", "*.yml"], cwd=ROOT, capture_output=True, text=True
    )
    return {name for name in found.stdout.split() if not AMONG_OTHERS.fullmatch(name)}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_files_of_a_task_are_there(task):
    assert FILES[task]
    assert [name for name in FILES[task] if not (ROOT / name).is_file()] == []


@in_git
@pytest.mark.parametrize("task", sorted(task for task, text in TASKS.items() if "Example:" in text))
def test_a_task_names_every_file_that_knows_its_example(task):
    (example,) = re.findall(r"^Example: (\w+)\.$", TASKS[task], re.MULTILINE)
    assert knowing(example) - FILES[task] == set()


def test_all_six_tasks_are_there():
    assert set(TASKS) == {"model", "modality", "likelihood", "metric", "figure", "chapter"}
