"""Part of units in tests that stand for a whole connection: a reading as one read after the other, uncut."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from drivers.modbus.unit import MAX_READ, Priority, Span, Table


class Spanwise(Protocol):
    """Gives a class with `read` the `reading` and `registers_max` of drivers.modbus.unit.Unit."""

    registers_max: int = MAX_READ

    def read(
        self, address: int, count: int, *, table: Table = Table.HOLDING, priority: Priority = Priority.READ
    ) -> Awaitable[bytes]: ...

    def reading(self, spans: Sequence[Span]) -> Callable[[], Awaitable[bytes]]:
        async def read() -> bytes:
            return b"".join([await self.read(span.address, span.count, table=span.table) for span in spans])

        return read
