"""The array types of the house: the fleet stands in columns, one row per device."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.intp]
ByteArray = NDArray[np.uint8]
ComplexArray = NDArray[np.complex128]
AnyArray = NDArray[Any]
