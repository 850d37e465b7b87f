"""Powers of all loads, or of all generators, of a compiled circuit, written as columns.

Only `opendss.py` uses this. Everything here that AltDSS keeps to itself has a way round by what it makes public: that
rebuilds the admittance matrix with every write, at four times the cost of the whole step.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from derms.domain.arrays import FloatArray
from derms.grid.dss import SetterFlags

SETTLED_LATE = {"Load": {6, 7}, "Generator": {4, 5}}
"""Models of each class whose reactive power OpenDSS settles when an edit ends; that of others when it solves."""


class PowerColumns:
    """The powers of an OpenDSS class, in its own order. It holds until the circuit is compiled anew.

    Parameters
    ----------
    batch
        All elements of the class, of AltDSS.
    """

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self._kw, self._kvar = np.zeros(len(batch)), np.zeros(len(batch))
        self._writes: tuple[Callable[[], None], ...] = ()
        try:
            if len(batch):
                self._writes = _direct(batch, self._kw, self._kvar)
        except AttributeError:
            self._writes = (self._write_publicly,)

    def write(self, p_w: FloatArray, q_var: FloatArray) -> None:
        """Write all powers [W, var], each of shape (elements,).

        Active power goes first: OpenDSS derives reactive power from it until that is written.
        """
        np.divide(p_w, 1e3, out=self._kw)
        np.divide(q_var, 1e3, out=self._kvar)
        for write in self._writes:
            write()

    def _write_publicly(self) -> None:
        self._batch.kW = self._kw
        self._batch.kvar = self._kvar


def _direct(batch: Any, kw: FloatArray, kvar: FloatArray) -> tuple[Callable[[], None], ...]:
    """Calls that write the two columns from where they stand, and leave the admittance matrix alone.

    The elements' edit is begun and never ended: what an end derives anew for each element with each write, the next
    solution derives once more in any case.
    """
    library, buffer = batch._lib, batch._api_util.ffi.from_buffer
    elements, properties = batch._get_ptr_cnt(), batch._obj_cls._cls_prop_idx
    setting, flags = library.BatchOperation_Set, SetterFlags.AvoidFullRecalc
    writes = tuple(
        partial(library.Batch_Float64Array, *elements, properties[name], setting, buffer("double[]", column), flags)
        for name, column in (("kw", kw), ("kvar", kvar))
    )
    if not SETTLED_LATE[batch._obj_cls._cls_name] & {int(model) for model in batch.Model}:
        batch.begin_edit()
    return writes
