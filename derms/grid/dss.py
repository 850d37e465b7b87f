"""The OpenDSS library, loaded: the only place that imports it.

Its Pascal runtime keeps the address of the environment it was loaded with, and reads there again in every thread that
enters it for the first time. The C library moves the environment when variables are added, and the address then leads
nowhere: the process dies. So it is given a copy that stays where it is.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np  # noqa: F401 - it sets variables while it loads: not while the copy is the environment

_lasting: list[Any] = []


@contextmanager
def _lasting_environment() -> Iterator[None]:
    """While a library loads, the process's environment is a copy that is never moved or freed."""
    texts = [ctypes.create_string_buffer(name + b"=" + value) for name, value in os.environb.items()]
    copy = (ctypes.c_char_p * (len(texts) + 1))(*(ctypes.cast(text, ctypes.c_char_p) for text in texts), None)
    _lasting.extend((*texts, copy))
    environ = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "environ")
    before = environ.value
    environ.value = ctypes.addressof(copy)
    try:
        yield
    finally:
        environ.value = before


with _lasting_environment():
    import opendssdirect  # noqa: F401 - AltDSS asks for it late, and a confined process may import nothing
    from altdss import ControlMode, DSSException, SetterFlags, altdss
    from dss import SparseSolverOptions

__all__ = ["ControlMode", "DSSException", "SetterFlags", "SparseSolverOptions", "altdss"]
