"""`python -m benchmarks.workers`: the time of one small study on one local worker and on several."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time

from qmvae_study import shell
from qmvae_study.evidence.folder import REPOSITORY, opened
from qmvae_study.evidence.provenance import provenance
from qmvae_study.evidence.records import FORMAT, write_json

READINGS = tuple(f"default+beta={beta}" for beta in (1500, 1400, 1300, 1200))  # four runs that differ in a number only


def main() -> None:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=opened, default=REPOSITORY / "runs" / "benchmarks", help="folder of the record")
    options = parser.parse_args()
    found = []
    for workers in options.workers:
        with tempfile.TemporaryDirectory() as evidence:
            command = [
                sys.executable, "-m", "qmvae_study", "run", "--profile", "smoke", "--device", "cpu",
                "--evidence", evidence,
                "--readings", *READINGS, "--scheduler", "local", "--workers", str(workers),
            ]  # fmt: skip
            started = time.monotonic()
            subprocess.run(command, cwd=REPOSITORY, check=True)
            found.append({"workers": workers, "seconds": time.monotonic() - started})
    for each in found:
        print(f"{each['workers']} workers: {each['seconds']:.0f} s for {len(READINGS)} runs")
    record = {"format": FORMAT, "id": "workers", "provenance": provenance(), "runs": len(READINGS), "measured": found}
    write_json(options.out / "workers.json", record)


if __name__ == "__main__":
    sys.exit(shell.carry_out(main))
