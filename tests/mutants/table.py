"""All planted faults: a new one is a line in the table of its room."""

from tests.mutants.control import CONTROL
from tests.mutants.drivers import DRIVERS
from tests.mutants.fault import Fault
from tests.mutants.field import FIELD
from tests.mutants.journal import JOURNALLED
from tests.mutants.link import LINK
from tests.mutants.orders import ORDERS
from tests.mutants.plans import PLANS

FAULTS: tuple[Fault, ...] = (*JOURNALLED, *FIELD, *LINK, *ORDERS, *CONTROL, *DRIVERS, *PLANS)
