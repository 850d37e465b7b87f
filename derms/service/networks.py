"""The networks in which a site's devices are: none of them is anywhere else, if the site says where they are."""

import ipaddress

from derms.domain.der import Transport
from derms.service.fleet_row import Row
from derms.service.settings import SiteFile

Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
"""Empty where devices may be anywhere."""


def read_networks(file: SiteFile, text: str | None) -> Networks:
    """The networks of [field]; each that is none is reported."""
    networks = []
    for word in (word.strip() for word in (text or "").split(",")):
        try:
            if word:
                networks.append(ipaddress.ip_network(word))
        except ValueError as error:
            wrong = f"[field] networks: '{word}' is no network ({error})"
            file.report.add(file.where("field.networks"), wrong, "write them like 10.20.0.0/16, 192.0.2.17/32")
    return tuple(networks)


def check_network(row: Row, transport: Transport, networks: Networks) -> None:
    """The host of a row is an address in one of the networks; a serial line is in none."""
    host = row.text("host")
    if not networks or host is None or transport is Transport.SERIAL:
        return
    known = ", ".join(str(network) for network in networks)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        wrong = f"'{host}' is a name, and may come to mean an address anywhere"
        row.wrong("host", wrong, f"give its address in one of the networks of the site ({known})")
        return
    if not any(address in network for network in networks):
        wrong = f"'{host}' is in none of the networks of the site ({known})"
        row.wrong("host", wrong, "give another address, or add its network to [field] networks")
