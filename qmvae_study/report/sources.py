"""The source of a function as an output of the chapter that derives it: a changed function makes a stale page."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Python text that a notebook shows highlighted. name: of what it is the source; module: where that is defined."""

    name: str
    module: str
    text: str

    def __repr__(self) -> str:
        return f"source of {self.name}"

    def _repr_markdown_(self) -> str:
        return f"From `{self.module}`:\n\n```python\n{self.text}\n```"


def source_of(*functions: Callable) -> Source:
    """The source of functions or classes of one module, one below the other.

    Raises OSError where there is no file, and ValueError for functions of several modules.
    """
    (module,) = {each.__module__ for each in functions}
    names = ", ".join(each.__qualname__ for each in functions)
    return Source(names, module, "\n\n".join(inspect.getsource(each) for each in functions).rstrip())
