"""The guest's network as image.toml and an instance's own values say it: the keys of section 2 of
guest/BOOT_CONTRACT.md, from `address` to `mmds`.

Addresses are checked here and kept in their canonical form, so that PID 1 need not be clever.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from fcbuild.tables import Table

# Limits of the boot contract.
MAX_EACH = 16
MAX_HOSTS = 256
MIN_MTU, MAX_MTU = 68, 65535

_NAME = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_NAME}(\.{_NAME})*")


class NetworkSpec(NamedTuple):
    """What is to be known about `eth0`; empty and None where nothing is said.

    addresses: "ADDRESS/PREFIX". hosts: lines of /etc/hosts, "ADDRESS NAME". mtu in bytes.
    mmds: whether the guest gets a route to the metadata service.
    """

    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    mtu: int | None = None
    mmds: bool = False

    def records(self) -> Iterator[tuple[str, str]]:
        """Yield the records of the boot contract, key and value."""
        yield from (("address", value) for value in self.addresses)
        yield from (("gateway", value) for value in self.gateways)
        yield from (("dns", value) for value in self.dns)
        yield from (("search", value) for value in self.search)
        yield from (("host", value) for value in self.hosts)
        if self.mtu is not None:
            yield "mtu", str(self.mtu)
        if self.mmds:
            yield "mmds", ""


def read(table: Table) -> NetworkSpec:
    """Read a [network] table; what is wrong in it becomes problems of the table."""
    network = NetworkSpec(
        addresses=_each(table, "address", 'an address like "10.0.0.2/24"', interface),
        gateways=_each(table, "gateway", 'an address like "10.0.0.1"', address),
        dns=_each(table, "dns", 'an address like "10.0.0.1"', address),
        search=_each(table, "search", 'a domain like "example.org"', _domain),
        hosts=_hosts(table),
        mtu=table.integer("mtu", 0, MIN_MTU, MAX_MTU) or None,
        mmds=table.boolean("mmds"),
    )
    table.finish()
    return network


def interface(text: str) -> str | None:
    """Return ADDRESS/PREFIX in its canonical form, or None for anything else."""
    host, slash, prefix = text.partition("/")
    known = address(host)
    if known is None or not slash or not re.fullmatch(r"[0-9]{1,3}", prefix):
        return None
    try:
        return str(ipaddress.ip_interface(f"{known}/{int(prefix)}"))
    except ValueError:
        return None


def address(text: str) -> str | None:
    """Return an IPv4 or IPv6 address in its canonical form, or None for anything else."""
    try:
        # A zone names an interface of this machine, not of the guest.
        return None if "%" in text else str(ipaddress.ip_address(text))
    except ValueError:
        return None


def _domain(text: str) -> str | None:
    return text if DOMAIN.fullmatch(text) else None


def _each(
    table: Table, key: str, expected: str, check: Callable[[str], str | None]
) -> tuple[str, ...]:
    """Read a string or a list of strings, each of which `check` turns into its canonical form."""
    found: list[str] = []
    for text in table.one_or_more(key):
        value = check(text)
        if value is None:
            table.problem(key, expected, text)
        else:
            found.append(value)
    if len(found) > MAX_EACH:
        table.problem(key, f"at most {MAX_EACH}", len(found))
    return tuple(found)


def _hosts(table: Table) -> tuple[str, ...]:
    lines = []
    for name, text in table.string_map("hosts").items():
        known = address(text)
        if known is None or not DOMAIN.fullmatch(name):
            table.problem("hosts", 'names and addresses like { db = "10.0.0.3" }', {name: text})
        else:
            lines.append(f"{known} {name}")
    if len(lines) > MAX_HOSTS:
        table.problem("hosts", f"at most {MAX_HOSTS}", len(lines))
    return tuple(lines)
