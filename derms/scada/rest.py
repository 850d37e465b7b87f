"""The utility's system over REST: one JSON document to read, one to publish; bounded in time and size.

Certificates are always checked, redirects never followed, and the token goes to the one address that was named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from derms.domain.scada import Publication, Sample, ScadaPoint
from derms.errors import ScadaError
from derms.scada.errand import Errand
from derms.scada.file import BYTES_MAX
from derms.scada.formats import from_json
from derms.scada.publication import as_json

CHUNK_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How an address is reached."""

    url: str
    timeout_s: float
    token: str = ""
    """Sent as a bearer token; empty sends none."""
    ca: Path | None = None
    """Certificates of the authorities to trust; the system's own without it."""


class _Client:
    """One address, one request at a time."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy or a .netrc of the machine must not decide where the token goes
        self._session.verify = str(access.ca) if access.ca else True
        self._errand = Errand(access.timeout_s)

    async def request(self, method: str, headers: Mapping[str, str], body: bytes | None = None) -> "_Answer":
        try:
            return await self._errand(lambda: self._request(method, headers, body))
        except ScadaError as error:
            raise ScadaError(f"{self._access.url}: {error}") from error

    def _request(self, method: str, headers: Mapping[str, str], body: bytes | None) -> "_Answer":
        access = self._access
        bearer = {"Authorization": f"Bearer {access.token}"} if access.token else {}
        try:
            with self._session.request(
                method,
                access.url,
                data=body,
                headers={**headers, **bearer},
                timeout=access.timeout_s,
                allow_redirects=False,
                stream=True,
            ) as response:
                return _Answer(response.status_code, response.headers.get("ETag", ""), _body(response))
        except requests.RequestException as error:
            raise ScadaError(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    etag: str
    body: bytes


def _body(response: requests.Response) -> bytes:
    """The body; raises ScadaError for another status than success or `not modified`, and beyond the size allowed."""
    if response.is_redirect:
        raise ScadaError(f"it leads on to {response.headers['Location']}: name that address instead")
    if not (200 <= response.status_code < 300 or response.status_code == requests.codes.not_modified):
        raise ScadaError(f"it answers {response.status_code} {response.reason}")
    data = bytearray()
    for chunk in response.iter_content(CHUNK_BYTES):
        data += chunk
        if len(data) > BYTES_MAX:
            raise ScadaError(f"it answers more than {BYTES_MAX} bytes")
    return bytes(data)


class RestScada:
    """A ScadaLink over GET; an answer `not modified` says that everything told last still holds."""

    def __init__(self, access: Access, points: Sequence[ScadaPoint]) -> None:
        self._client = _Client(access)
        self._url = access.url
        self._wheres = tuple(point.where for point in points)
        self._etag = ""
        self._last: Sequence[Sample] = ()

    async def fetch(self) -> Sequence[Sample] | None:
        """Samples as the server has them now; raises ScadaError."""
        known = {"If-None-Match": self._etag} if self._etag else {}
        answer = await self._client.request("GET", {"Accept": "application/json", **known})
        if answer.status != requests.codes.not_modified:
            self._last, self._etag = self._parsed(answer.body), answer.etag
        return self._last

    def _parsed(self, body: bytes) -> list[Sample]:
        try:
            return from_json(body.decode("utf8"), self._wheres, written_at=None)
        except (UnicodeDecodeError, ScadaError) as error:
            raise ScadaError(f"{self._url}: {error}") from error


class RestOutlet:
    """A PlanOutlet over PUT or POST of the whole plan as JSON."""

    def __init__(self, access: Access, method: str) -> None:
        self._client = _Client(access)
        self._method = method

    async def send(self, publication: Publication) -> None:
        """Send the plan; raises ScadaError unless the server says that it took it."""
        await self._client.request(self._method, {"Content-Type": "application/json"}, as_json(publication))
