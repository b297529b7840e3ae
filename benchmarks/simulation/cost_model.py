"""Cost model: turns counts of operations, bytes, messages and requests into seconds.

Constants are public figures of machines like those that a large run would have, or were measured here; each says which.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

from alphafuse.storage.filesystem.buckets import CONNECTIONS, SINGLE_BYTES
from alphafuse.storage.filesystem.side_by_side import AT_A_TIME

UPLOAD_BYTES = 10 * 2**20
"""Part of a large upload, as pyarrow cuts it; a test counts the requests."""
NAMES_IN_A_LIST = 1000
"""Names in one answer of S3 to a request for a list."""


@dataclass(frozen=True)
class Work:
    """Work of one process, or of one kind of its threads.

    Attributes:
        products: operations of matrix products on the card, a multiplication and an addition counting one each.
        card_bytes: bytes that the card reads and writes in its memory.
        sent: bytes that the card sends to other cards, or receives, whichever is more.
        messages: messages that this takes, one for each partner.
        host_sent, host_messages: as before, for the CPUs of the machines.
        requests: requests to the storage.
        waits: answers of the storage that are waited for one after the other; a file that is written or read in pieces
            has several requests at a time.
        stored: bytes that one connection to the storage reads or writes.
        streamed: bytes of files that are written or read in pieces over several connections.
        cpu: seconds of a core.
    """

    products: float = 0.0
    card_bytes: float = 0.0
    sent: float = 0.0
    messages: float = 0.0
    host_sent: float = 0.0
    host_messages: float = 0.0
    requests: float = 0.0
    waits: float = 0.0
    stored: float = 0.0
    streamed: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(mine + theirs for mine, theirs in zip(_values(self), _values(other), strict=True)))

    def __mul__(self, times: float) -> Work:
        return Work(*(times * value for value in _values(self)))


@dataclass(frozen=True)
class Machine:
    """Costs of one card, one core and their ways to others."""

    products: float = 1e14
    """Operations of the card's products a second. Assumed: a fifth of the 495·10¹² of TF32 without sparsity (data sheet
    of the H100 SXM), since the products are narrow."""
    encoder_products: float = 4e14
    """The same for a language model. Assumed: two fifths of the 989·10¹² of bfloat16 (the same data sheet)."""
    exact_products: float = 4e13
    """The same in float32, which exact ranks need. Assumed: 0.6 of the 67·10¹² of the same data sheet."""
    card_memory: float = 2.3e12
    """Bytes of the card's memory a second. Assumed: 0.7 of the 3.35·10¹² of the data sheet."""
    network: float = 25e9
    """Bytes that a card sends a second. Assumed: half of the 400 Gbit/s of one ConnectX-7 for each card."""
    message: float = 5e-6
    """Seconds that a card's message takes its sender. Assumed."""
    host_network: float = 1.25e9
    """Bytes that a process sends a second by TCP. Assumed: 10 Gbit/s."""
    host_message: float = 50e-6
    """Seconds of a message by TCP between machines of one data centre. Assumed."""
    request: float = 0.1
    """Seconds until a bucket answers. Assumed: the lower end of the 100–200 ms that AWS names for small objects of S3
    ("Performance design patterns for Amazon S3")."""
    connection: float = 85e6
    """Bytes of one connection to a bucket a second. Assumed: the 85–90 MB/s that the same page names."""

    def seconds(self, work: Work) -> dict[str, float]:
        """Seconds of some work, by what they are spent on; the sum is that of doing one after the other."""
        return {
            "card": work.products / self.products + work.card_bytes / self.card_memory,
            "network": work.sent / self.network + work.messages * self.message,
            "host network": work.host_sent / self.host_network + work.host_messages * self.host_message,
            "storage": work.waits * self.request + (work.stored + work.streamed / CONNECTIONS) / self.connection,
            "processor": work.cpu,
        }


@dataclass(frozen=True)
class Phase:
    """Part of a stage.

    Attributes:
        where: the process that does the work: `driver`, `one task`, `each task` of those side by side, or `each rank`.
        work: what it does one after the other.
        beside: what threads of it do meanwhile.
        host, card: bytes that it holds.
    """

    stage: str
    name: str
    where: str
    work: Work
    beside: Work = field(default_factory=Work)
    host: float = 0.0
    card: float = 0.0

    def row(self, machine: Machine) -> dict[str, str | float]:
        """The phase as a row of a table, with its seconds and what takes most of them."""
        spent = max((machine.seconds(work) for work in (self.work, self.beside)), key=lambda each: sum(each.values()))
        both = self.work + self.beside
        return {
            "stage": self.stage,
            "phase": self.name,
            "process": self.where,
            "host GB": self.host / 1e9,
            "card GB": self.card / 1e9,
            "sent MB": (both.sent + both.host_sent) / 1e6,
            "requests": both.requests,
            "storage MB": (both.stored + both.streamed) / 1e6,
            "seconds": sum(spent.values()),
            "most of it": max(spent, key=lambda name: spent[name]),
        }


def writes(files: float, size: float) -> Work:
    """Files of `size` bytes that are written one after the other, each with its record."""
    if size < SINGLE_BYTES:
        return Work(requests=2 * files, waits=2 * files, stored=size * files)
    return Work(requests=(3 + math.ceil(size / UPLOAD_BYTES)) * files, waits=3 * files, streamed=size * files)


def reads_groups(files: float, groups: float, size: float) -> Work:
    """Parquet files of which some row groups are read, `size` bytes of each file: its size, its end, the groups."""
    return Work(requests=(2 + groups) * files, waits=(2 + groups) * files, stored=size * files)


def beside_one_another(work: Work) -> Work:
    """Work with the storage that `side_by_side` does."""
    return dataclasses.replace(work, waits=work.waits / AT_A_TIME, stored=work.stored / AT_A_TIME)


def commits(files: float, looks: int = 1) -> Work:
    """The commit of an artefact of so many files: a list of names, the size and the content of every record, a second
    list, and two manifests.

    Args:
        looks: times that the records are read.
    """
    names = math.ceil(2 * files / NAMES_IN_A_LIST)
    records = Work(requests=2 * files + names, waits=2 * math.ceil(files / AT_A_TIME) + names)
    return records * looks + Work(requests=names + 2, waits=names + 2)


def _values(work: Work) -> list[float]:
    return [getattr(work, entry.name) for entry in dataclasses.fields(Work)]
