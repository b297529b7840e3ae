"""Addresses that processes listen on, while some of the processes come and go."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address

import psutil


def addresses(family: Iterable[psutil.Process]) -> set[tuple[str, int]]:
    """The (address, port) that living processes of a family listen on.

    Processes that have ended since they were listed have none. An IPv4 address that a socket of IPv6 holds is told as
    IPv4.
    """
    found = set()
    for process in family:
        with suppress(psutil.NoSuchProcess):  # zombies among them
            found |= {
                (_plain(connection.laddr.ip), connection.laddr.port)
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
    return found


def _plain(address: str) -> str:
    return str(getattr(ip_address(address), "ipv4_mapped", None) or address)
