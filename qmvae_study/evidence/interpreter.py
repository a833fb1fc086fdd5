"""Notebooks in kernels of this very interpreter; as a program, papermill on one: the notebook, its output, parameters.

Jupyter finds a kernel by its name, and the first of a name may belong to another environment, with another library.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from qmvae_core.files import replacing
from qmvae_study.evidence.folder import REPOSITORY, fcntl

PREFIX = "qmvae-kernel-"  # of folders below the system's temporary one
UNWRITTEN = 74  # EX_IOERR, the exit status of a program that could not write its output
FRESH = 60.0  # seconds in which a folder may not have its lock yet


@functools.cache
def kernel_manager() -> type:
    """The class that starts the interpreter that it runs in, with the library that it runs, whatever the kernel's name.

    A kernel reads no start-up files of the user's. Its connection file lies in a folder of its own, which goes with it,
    or when the next kernel starts. exit_status: of the last kernel that died; negative: the signal that ended it.
    """
    from ipykernel.kernelspec import RESOURCES, get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager, TraitError

    class ThisInterpreter(AsyncKernelManager):
        exit_status = 0

        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())

        async def start_kernel(self, **options) -> None:
            remove_abandoned()
            self.folder = tempfile.mkdtemp(prefix=PREFIX)
            if fcntl:
                self.lock = os.open(self.folder, os.O_RDONLY)
                fcntl.flock(self.lock, fcntl.LOCK_EX)
            self.connection_file = os.path.join(self.folder, "kernel.json")
            with contextlib.suppress(TraitError):  # where the transport cannot; then the kernel warns of readers
                self.transport_encryption = "auto"
            own = {"IPYTHONDIR": self.folder, "PYTHONPATH": library_first()}
            await super().start_kernel(**{**options, "env": {**os.environ, **own}})

        async def is_alive(self) -> bool:
            alive = await super().is_alive()
            if not alive and self.has_kernel:
                ThisInterpreter.exit_status = self.provisioner.process.returncode
            return alive

        def cleanup_connection_file(self) -> None:
            super().cleanup_connection_file()
            if folder := self.__dict__.pop("folder", None):
                shutil.rmtree(folder, ignore_errors=True)
                if fcntl:
                    os.close(self.lock)

    return ThisInterpreter


def library_first() -> str:
    """PYTHONPATH for a process that finds the library where this one did."""
    return os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))


def remove_abandoned() -> None:
    """Remove the folders of kernels whose starter was killed; the system took the lock of each away from it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*") if fcntl else ():
        with contextlib.suppress(OSError):  # another user's, or locked
            file = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - folder.stat().st_mtime > FRESH:
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(file)


def main(notebook: str, output: str, parameters: str) -> int:
    """Papermill on a notebook, in its folder; parameters: as JSON. Ends at once when standard input, a pipe, does.

    SIGTERM goes on to the kernel. Returns the exit status: that of a shell for a kernel that died, UNWRITTEN where the
    output could not be written. A notebook without room on the disk does not end what its kernel does.
    """
    threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()
    signal.signal(signal.SIGTERM, _pass_on)
    sys.modules["rfc3987_syntax"] = None  # a grammar that jsonschema reads for a second, and that no notebook needs
    import papermill  # slow, so it comes behind what a starter may want of this process
    from nbclient.exceptions import DeadKernelError
    from papermill.iorw import LocalHandler, papermill_io

    class Whole(LocalHandler):
        failed = False

        def write(self, buf: str, path: str) -> None:
            try:
                with replacing(path, len(buf.encode())) as part:
                    part.write_text(buf, encoding="utf-8")
                Whole.failed = False
            except OSError as error:
                if not Whole.failed:  # said once, and tried again after the next cell
                    print(error, flush=True)
                Whole.failed = True

    papermill_io.register(os.sep, Whole())
    where = {"cwd": str(Path(notebook).parent), "kernel_name": "python3", "kernel_manager_class": kernel_manager()}
    shown = {"stdout_file": sys.stdout, "progress_bar": False}
    try:
        papermill.execute_notebook(notebook, output, json.loads(parameters), **where, **shown)
    except DeadKernelError:
        return 128 - kernel_manager().exit_status
    except papermill.PapermillExecutionError as error:
        if not Whole.failed:
            raise
        print(error, file=sys.stderr)
    return UNWRITTEN if Whole.failed else 0


def _pass_on(number: int, frame) -> None:
    """Hand a signal on to the kernel; without one there is nothing to lose."""
    import psutil

    kernels = psutil.Process().children()
    for kernel in kernels:
        with contextlib.suppress(psutil.Error):
            kernel.send_signal(number)
    if not kernels:
        os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
