"""Faults in the lease on a site's devices, and in the link between gateway, brain and commands."""

from tests.mutants.fault import Fault

LEASE = "derms/field/lease.py"
ANSWERING = "derms/link/answering.py"
ASKING = "derms/link/asking.py"
LOCAL = "derms/link/local.py"
DESK = "derms/service/gateway_desk.py"

_LEASE = ("tests/field/test_lease.py",)
_LINK = ("tests/link/test_link.py",)
_ORDER = ("tests/service/test_dispatch_order.py",)
_DISTRUST = ("tests/link/test_distrust.py",)

LINK: tuple[Fault, ...] = (
    Fault(
        "a command of an older lease is sent", LEASE, "        if token != self.token:\n", "        if False:\n", _LEASE
    ),
    Fault(
        "a command is sent after its deadline",
        LEASE,
        "        if not now_s < deadline_s:\n",
        "        if False:\n",
        _LEASE,
    ),
    Fault(
        "the deadlines of a lease go by the wall clock",
        LEASE,
        "        if not now_s < deadline_s:\n",
        '        if not __import__("time").time() < deadline_s:\n',
        _LEASE,
    ),
    Fault(
        "a command is sent after the lease was lost",
        LEASE,
        "        if not self.held:\n",
        "        if False:\n",
        _LEASE,
    ),
    Fault(
        "a lease has the token of the one before",
        LEASE,
        "token = _token(os.pread(fd, DIGITS, 0), path) + 1",
        "token = max(_token(os.pread(fd, DIGITS, 0), path), 1)",
        _LEASE,
    ),
    Fault(
        "two gateways have the lease",
        LEASE,
        "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        _LEASE,
    ),
    Fault(
        "the token of a lease is not durable", LEASE, "            disk.sync(fd)\n", "", ("tests/field/test_disk.py",)
    ),
    Fault(
        "a request is acted on after its end",
        ANSWERING,
        "        if age_s > envelope.valid_s:\n",
        "        if False:\n",
        _LINK,
    ),
    Fault(
        "a request that comes twice is acted on twice",
        ANSWERING,
        "        if key not in self._answers:\n",
        "        if True:\n",
        _LINK,
    ),
    Fault(
        "times of another machine are compared with ours",
        ANSWERING,
        "        if envelope.stamp.boot != self._boot:\n",
        "        if False:\n",
        _LINK,
    ),
    Fault(
        "a message of another version is acted on",
        ANSWERING,
        "        if envelope.version != VERSION:\n",
        "        if False:\n",
        _LINK,
    ),
    Fault(
        "the answer to another request is taken",
        ASKING,
        "if not isinstance(answer, Answer) or answer.id != envelope.id:",
        "if not isinstance(answer, Answer):",
        _DISTRUST,
    ),
    Fault(
        "a frame of any length is read",
        LOCAL,
        "    if length > FRAME_MAX_BYTES:\n",
        "    if False:\n",
        _DISTRUST,
    ),
    Fault("everybody on the machine may command", LOCAL, "self._path.chmod(0o660)", "self._path.chmod(0o666)", _LINK),
    Fault(
        "a dispatch that is older than the latest is adopted",
        DESK,
        "        if ticket.age_key > self._last:\n",
        "        if True:\n",
        _ORDER,
    ),
    Fault(
        "a brain that does not lead any more is followed",
        DESK,
        "if stale is not None:",
        "if stale is not None and ticket.token < 0:",
        _ORDER,
    ),
)
