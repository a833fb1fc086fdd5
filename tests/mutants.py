"""Plant mutants in the code and count those that the project's own tests catch: `make mutants`.

A mutant is a module with one small change. It stands in a copy of the checkout, and is caught where one of the tests
that must see it fails there or does not end. Those that no test could catch are listed here with the reason, and are
not counted. Survivors and a table are printed, and a record is written of each group.
"""

import argparse
import ast
import importlib
import linecache
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What is mutated together: the files, the tests that must see it, and the share that they must catch.
GROUPS = {
    "losses": ("qmvae_core/losses.py", "losses gaussians", 0.95),
    "gaussians": ("qmvae_core/gaussians.py", "gaussians losses missing", 0.95),
    "negatives": ("qmvae_core/negatives.py", "negatives missing", 0.95),
    "evaluation": ("qmvae_core/evaluation.py", "evaluation", 0.92),
    "data": ("qmvae_core/data/*.py", "data own", 0.92),
    "training": ("qmvae_core/training/*.py", "training damage missing", 0.92),
    "claims": ("qmvae_study/report/claims.py", "claims verdicts", 0.92),
    "rules": ("qmvae_study/report/rules.py", "rules claims", 0.92),
    "harness": ("qmvae_study/harness.py", "harness", 0.92),
    "tables": ("qmvae_study/report/tables.py", "tables claims", 0.92),
    "records": ("qmvae_study/evidence/records.py", "records tables plateau", 0.92),
}
# (what is in "module name: line of code | before -> after", why no test of ours can tell the mutant from the original)
NOT_COUNTED = [
    (r"strict=.* \| (True -> False|zip)", "the lists are of one length by construction"),
    (
        r"_capture:|'cuda' and .* \| self.graph|self.graph.replay|on_gpu = |if on_gpu|zero_grad.* -> (?!pass)",
        "has a say on a GPU only",
    ),
    (r"\| .*, capturable=on_gpu\) -> (?!.*capturable)", "has a say on a GPU only"),
    (r"\| .* device=.* -> (?!return)(?!.*device=)", "tells where a tensor is made, which differs on a GPU only"),
    (r"\| torch.argsort.*stable=|stable=True.* \| True", "torch sorts stably on a CPU, asked for or not"),
    (r"negatives.py \w+: .*(unsqueeze|sum).* \| 1 -> -1", "the last dimension of a square is also that numbered 1"),
    (r"harness.py \w+: .*(dim=-1|shape\[-1\]).* \| 1 -> -1", "the last dimension of a table is also that numbered 1"),
    (r"rules.py _word: .*( < LEVEL|mean > 0).* -> .*(<= LEVEL|mean >= 0)", "no p-value is just the level"),
    (r"fused=True\) -> ", "another order of the same sums"),
    (r"fused=True.* \| True -> False", "another order of the same sums"),
    (r"rank = torch.min.* \| (0 -> 1|1 -> -1|.*1 -> .*\+ 1|.*clamp\(\))", "a draw below 1 times n never rounds to n"),
    (r"losses.py distance: .* \| 1.0 -> -?[12].0", "a number whose root is taken, to be thrown away"),
    (r"\| torch.ones_like\(candidates.loss", "ones of any type become the same integers"),
    (r"\| (property|_metric)\(.*doc=", "words for readers"),
    (r"_is_share: numbers = .* \| 1 -> ", "any number stands for one that is not there"),
    (r"_house_number: .*max\(1, ", "no digit is that narrow"),
    (r"_run: _check_finite\(loop, at\) \| .* -> pass", "on a CPU the losses are looked at in more than one place"),
    (r"run_key: .*sort_keys=True.* \| True -> False", "a config's fields come in one order"),
    (r"report_before: ends = .* \| 1 -> 2", "an end that no chunk comes to"),
    (r"time.monotonic\(\) > stop_at", "no two clocks are read alike"),
    (r"images.split\(4096\)", "how many images are turned at a time"),
]
# Imported once and not by each process: of others, never the code that is mutated.
HEAVY = "torch torchvision pandas scipy.stats sklearn.linear_model sklearn.neural_network hypothesis.extra.numpy"

SWAPPED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "argmax": "argmin", "amin": "amax", "amax": "amin"}


class Mutant(NamedTuple):
    """One change: where, in a function or class of which name, what stood and stands there, and all of the code."""

    module: str
    line: int
    name: str
    before: str
    after: str
    code: str

    def __str__(self):
        start = max(len(os.path.commonprefix([self.before, self.after])) - 40, 0)
        before, after = (" ".join(text[start : start + 90].split()) for text in (self.before, self.after))
        return f"{self.module}:{self.line} {self.name}: {before}  ->  {after}"


def _changed(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in this one's place: another sign, constant, condition or result, or one keyword or check less."""
    other = lambda **fields: type(node)(**{**vars(node), **fields})  # noqa: E731
    match node:
        case ast.Compare(ops=ops):
            yield from (other(ops=[*ops[:i], SWAPPED[type(op)](), *ops[i + 1 :]]) for i, op in enumerate(ops))
        case ast.BinOp(op=ast.BitOr()):
            yield node.left
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in SWAPPED:
            yield other(op=SWAPPED[type(op)]())
        case ast.UnaryOp() if not isinstance(node.operand, ast.Constant):
            yield node.operand
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield ast.Constant(node.value + 1)
            if node.value:
                yield ast.UnaryOp(ast.USub(), node)
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in NAMES:
            yield other(**{"id" if isinstance(node, ast.Name) else "attr": NAMES[name]})
        case ast.Call(keywords=keywords):
            yield from (other(keywords=[k for k in keywords if k is not each]) for each in keywords if each.arg)
        case ast.Return(ast.expr()):
            yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Expr(ast.Call()):
            yield ast.Pass()


def _places(node: ast.AST, name: str = "") -> Iterator[tuple[dict | list, str | int, str, str]]:
    """Where each node below this one is kept: (holder, key), field and name, in order; types are no code."""
    name = node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else name
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns"):
            holder, keys = (value, range(len(value))) if isinstance(value, list) else (vars(node), [field])
            for key in keys:
                if isinstance(holder[key], ast.AST):
                    yield holder, key, field, name
                    yield from _places(holder[key], name)


def mutants(module: str) -> Iterator[Mutant]:
    """All mutants of a file, each another text."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    seen = {ast.unparse(tree)}
    for holder, key, field, name in _places(tree):
        node = holder[key]
        found = list(_changed(node))
        if field in ("test", "ifs"):
            found.append(ast.UnaryOp(ast.Not(), node))
        if field in ("defaults", "kw_defaults") and isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(ast.Constant(f"not {node.value}"))
        for new in found:
            holder[key] = new
            code = ast.unparse(ast.fix_missing_locations(tree))
            if code not in seen:
                yield Mutant(module, node.lineno, name, ast.unparse(node), ast.unparse(new), code)
            seen.add(code)
        holder[key] = node


def reason(mutant: Mutant) -> str | None:
    """Why a mutant is not counted; None where it is."""
    stood = linecache.getline(str(ROOT / mutant.module), mutant.line)
    text = " ".join(f"{mutant.module} {mutant.name}: {stood} | {mutant.before} -> {mutant.after}".split())
    return next((why for pattern, why in NOT_COUNTED if re.search(pattern, text)), None)


def _copy(own: Path) -> Path:
    """A checkout of its own for this process: packages and tests are copied, the rest is pointed to."""
    folder = own / str(os.getpid())
    if not folder.exists():
        folder.mkdir()
        for path in ROOT.iterdir():
            if path.name.startswith(("qmvae_", "tests")):
                shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
            elif not path.name.startswith((".", "_")):
                (folder / path.name).symlink_to(path)
    return folder


def _test(folder: Path, tests: str) -> None:
    os.setsid()
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    os.chdir(folder)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # plugins cost seconds
    os.environ["PYTHONPATH"] = sys.path[0] = str(folder)  # before the editable install, in its own processes too
    files = [f"tests/test_{name}.py" for name in tests.split()]
    os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--basetemp", str(folder / "tmp"), *files]))


def passes(own: Path, tests: str, limit: float, mutant: Mutant | None = None) -> bool:
    """Whether the tests pass within so many seconds, in a process that has imported nothing of ours before."""
    folder = _copy(own)
    sys.dont_write_bytecode = mutant is not None  # or the original would run, or the next mutant this one
    if mutant:
        (folder / mutant.module).write_text(mutant.code, encoding="utf-8")
    child = multiprocessing.get_context("fork").Process(target=_test, args=(folder, tests))
    child.start()
    child.join(limit)
    if child.is_alive():
        os.killpg(child.pid, signal.SIGKILL)
        child.join()
    if mutant:
        shutil.copy2(ROOT / mutant.module, folder / mutant.module)
    if mutant and child.exitcode == 0:
        print(mutant, flush=True)
    return child.exitcode == 0


def main() -> None:
    """Plant, test, print and write; ends with 1 where a group's share is below its goal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--modules", nargs="+", default=list(GROUPS), choices=GROUPS, metavar="NAME")
    parser.add_argument("--count", type=int, help="of mutants of each, drawn at random; all unless given")
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "mutants", help="folder of the records")
    options = parser.parse_args()
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    for name in HEAVY.split():
        importlib.import_module(name)
    fork, rows = multiprocessing.get_context("fork"), {}
    with tempfile.TemporaryDirectory() as own, ProcessPoolExecutor(options.jobs, fork) as pool:
        pool.submit(os.getpid).result()  # its processes are there before anything of ours is imported
        from qmvae_study.evidence.provenance import provenance
        from qmvae_study.evidence.records import FORMAT, write_json

        made_by = provenance()
        for group in options.modules:
            pattern, tests, goal = GROUPS[group]
            began = time.monotonic()
            if not pool.submit(passes, Path(own), tests, 3600).result():
                raise SystemExit(f"mutants: the tests of {group} fail without one; make them pass first")
            limit = 60 + 10 * (time.monotonic() - began)
            every = [each for path in sorted(ROOT.glob(pattern)) for each in mutants(path.relative_to(ROOT).as_posix())]
            planted = random.Random(f"{options.seed} {group}").sample(every, min(options.count or 10**6, len(every)))
            spared = [{"mutant": str(each), "why": reason(each)} for each in planted if reason(each)]
            asked = {each: pool.submit(passes, Path(own), tests, limit, each) for each in planted if not reason(each)}
            alive = [str(each) for each, future in asked.items() if future.result()]
            row = {"possible": len(every), "planted": len(planted), "equivalent": len(spared)}
            row |= {"caught": len(asked) - len(alive), "share": 1 - len(alive) / max(len(asked), 1), "goal": goal}
            rows[group] = row
            record = {"format": FORMAT, "id": f"mutants-{group}", "files": pattern, **row, "survivors": alive}
            record |= {"spared": spared, "seed": options.seed, "provenance": made_by}
            write_json(options.out / f"{group}.json", record)
    print("\nmodule        possible   planted  equivalent  caught  share, %  goal, %")
    for name, row in rows.items():
        counts = f"{row['possible']:10}{row['planted']:10}{row['equivalent']:12}{row['caught']:8}"
        print(f"{name:12}{counts}{100 * row['share']:10.1f}{100 * row['goal']:9.0f}")
    sys.exit(any(row["share"] < row["goal"] for row in rows.values()))


if __name__ == "__main__":
    main()
