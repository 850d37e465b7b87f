"""One Modbus unit of a simulated device: registers that are read and written, and the faults that befall them.

Source: MODBUS Application Protocol 1.1b3 (functions 3, 4, 6, 16; exceptions 1-4, 6).
"""

import struct
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable

from hil import distort
from hil.fault_kinds import OF_MODELS, Fault, checked
from hil.registers import BASE, ILLEGAL_ADDRESS, ILLEGAL_VALUE, Bank

READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_MANY = 3, 4, 6, 16
READ_MAX = 125
WRITE_MAX = 123
ILLEGAL_FUNCTION = 1
DEVICE_FAILURE = 4
BUSY = 6

WriteHook = Callable[[int, int, int, bytes], None]
"""Told after a write: row in the bank, model, offset of the first register in that model, data."""
FaultHook = Callable[[Fault | None], None]
"""Told when a fault begins, and with None when it ends."""


def nothing(*what: object) -> None:
    """A hook for those who do not want to know."""


class SimulatedUnit(ABC):
    """What answers requests for one unit id.

    While `failing` is None, `view` holds the bytes of the holding registers from `base` on, and a server may answer
    reads from them without asking; it is empty for units that want to be asked.
    """

    base: int
    view: memoryview
    functions = frozenset({READ_HOLDING, WRITE_ONE, WRITE_MANY})

    def __init__(self) -> None:
        self.failing: Fault | None = None
        self.writes: Counter[int] = Counter()
        """How often each address was written."""
        self._value = 0.0
        self._requests = 0
        """Since the fault began."""
        self._writes_before: Counter[int] = Counter()

    def fail(self, kind: Fault, value: float | None = None) -> None:
        """Fail from now on, in this way alone; raises ValueError for a number that this kind does not take."""
        number = checked(kind, value)
        self.mend()
        self.failing = kind
        self._value = number
        self._requests = 0
        self._writes_before = self.writes.copy()
        if kind is Fault.REBOOT:
            self.restart()

    def mend(self) -> None:
        """End whatever fault there is."""
        self.failing = None

    @property
    def fault_value(self) -> float:
        """The number that goes with the fault."""
        return self._value

    def answer(self, pdu: bytes) -> bytes:
        """The answer to a request, both from the function code on."""
        function = pdu[0]
        result = self._refused_by_fault() or self._result(function, pdu[1:])
        self._requests += 1
        return bytes((function | 0x80, result)) if isinstance(result, int) else bytes((function,)) + result

    @abstractmethod
    def read(self, function: int, address: int, count: int) -> bytes | int:
        """The bytes of some registers, or a Modbus exception code."""

    def write(self, address: int, data: bytes) -> int:
        """Store registers, all or none. Returns 0 or a Modbus exception code."""
        admitted = self.admitted(address, data)
        if isinstance(admitted, int):
            return admitted
        addresses = range(address, address + len(data) // 2)
        self.writes.update(addresses)
        if self.failing is Fault.FLASH_WEAR:
            worn = (self.writes[at] - self._writes_before[at] > self._value for at in addresses)
            if any(worn):
                return DEVICE_FAILURE
        if self.failing not in (Fault.FREEZE, Fault.IGNORE_WRITE):
            self.store(address, admitted, obeyed=self.failing is not Fault.LOCAL_MODE)
        return 0

    @abstractmethod
    def admitted(self, address: int, data: bytes) -> bytes | int:
        """What would be stored of a write, or the Modbus exception code that refuses it."""

    @abstractmethod
    def store(self, address: int, data: bytes, *, obeyed: bool) -> None:
        """Store what was admitted, and do what it says when it is to be obeyed."""

    @abstractmethod
    def restart(self) -> None:
        """Take the settings that the device has when it is switched on."""

    def _refused_by_fault(self) -> int:
        if self.failing is Fault.EXCEPTION:
            return int(self._value)
        return BUSY if self.failing is Fault.BUSY and self._requests < self._value else 0

    def _result(self, function: int, body: bytes) -> bytes | int:
        """The body of the answer to a request, or an exception code."""
        if function not in self.functions:
            return ILLEGAL_FUNCTION
        match function:
            case 3 | 4 if len(body) == 4:
                return self._read(function, *struct.unpack(">HH", body))
            case 6 if len(body) == 4:
                return self.write(int.from_bytes(body[:2], "big"), body[2:]) or body
            case 16 if len(body) >= 5:
                return self._write_many(body)
        return ILLEGAL_VALUE

    def _read(self, function: int, address: int, count: int) -> bytes | int:
        if not 0 < count <= READ_MAX:
            return ILLEGAL_VALUE
        data = self.read(function, address, count)
        return data if isinstance(data, int) else bytes((len(data),)) + data

    def _write_many(self, body: bytes) -> bytes | int:
        address, count, size = struct.unpack_from(">HHB", body)
        data = body[5:]
        if not 0 < count <= WRITE_MAX or size != 2 * count or len(data) != size:
            return ILLEGAL_VALUE
        return self.write(address, data) or body[:4]


class BankUnit(SimulatedUnit):
    """One row of a bank of SunSpec registers."""

    def __init__(
        self,
        bank: Bank,
        row: int,
        *,
        on_write: WriteHook = nothing,
        on_fault: FaultHook = nothing,
        base: int = BASE,
    ) -> None:
        super().__init__()
        self.bank = bank
        self.row = row
        self.base = base
        self.view = bank.row(row)
        self._on_write = on_write
        self._on_fault = on_fault
        self._new = bytes(self.view)
        self._since = b""

    def fail(self, kind: Fault, value: float | None = None) -> None:
        super().fail(kind, value)
        self._since = bytes(self.view)
        if kind is Fault.FREEZE:
            self.view = memoryview(self._since)
        self._on_fault(kind)

    def mend(self) -> None:
        super().mend()
        self.view = self.bank.row(self.row)
        self._on_fault(None)

    def read(self, function: int, address: int, count: int) -> bytes | int:
        shown, at = self._shown(), 2 * (address - self.base)
        return bytes(shown[at : at + 2 * count]) if 0 <= at <= len(shown) - 2 * count else ILLEGAL_ADDRESS

    def admitted(self, address: int, data: bytes) -> bytes | int:
        """See `Bank.refusal`."""
        return self.bank.refusal(self.row, self._register(address), data) or data

    def store(self, address: int, data: bytes, *, obeyed: bool) -> None:
        register = self._register(address)
        self.bank.store(self.row, register, data)
        if obeyed:
            self._tell(register, data)

    def restart(self) -> None:
        image = self.bank.row(self.row)
        for register, count in self.bank.settings():
            data = self._new[2 * register : 2 * (register + count)]
            if data != image[2 * register : 2 * (register + count)]:
                self.bank.store(self.row, register, data)
                self._tell(register, data)

    def _tell(self, register: int, data: bytes) -> None:
        place = self.bank.places[register]
        self._on_write(self.row, place.model, place.point.offset, data)

    def _shown(self) -> bytes | memoryview:
        if self.failing is None or self.failing not in (*OF_MODELS, Fault.LOCAL_MODE):
            return self.view
        if self.failing is Fault.MAP_CHANGE:
            return distort.moved(bytes(self.view), self.bank)
        scene = distort.Scene(self.bank, bytes(self.view), self._since, self._value, self._requests)
        return distort.image(self.failing, scene)

    def _register(self, address: int) -> int:
        """The register of the bank behind an address; one outside the models where there is none."""
        register = address - self.base
        return distort.unmoved(register, self.bank) if self.failing is Fault.MAP_CHANGE else register
