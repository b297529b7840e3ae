"""The web service under load: times of answers, swaps of the model with a damaged one among them, and approximate
search beside exact search.

Clients are a process of their own that speaks HTTP and sends requests at random moments, whether or not earlier ones
have been answered; the time of a request begins at the moment when it was due.

python -m benchmarks.serve --json benchmarks/results/serve.json
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import requests
import torch

from alphafuse.registry.version_registry import Registry
from alphafuse.serving.recommender import Recommender, Search, load
from alphafuse.storage.workspace import Workspace
from benchmarks.common.made_exports import make_export
from benchmarks.common.tables import arguments, publish
from jobs.execution.free_ports import free_ports

K = 10
HISTORY = 20
"""Items of a history."""
HISTORIES = 200
"""Different histories; each request takes one of them."""
START_SECONDS = 600.0
SWAP_SECONDS = 120.0
"""Longest time that is waited for the service to start, and for a swap."""
TOLERANCE = 1e-5
"""Scores of products of other shapes differ by their rounding."""


@dataclass
class Load:
    """The fates of the requests of a time.

    Attributes:
        seconds: time of each answer.
        failed: answers that were none.
        mixed: answers that are not those of the model that they name.
        equal: answers with the items of the offline list in its order.
        versions: versions that answered.
    """

    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    mixed: int = 0
    equal: int = 0
    versions: set[str] = field(default_factory=set)

    def row(self) -> dict[str, Any]:
        """Figures for the table, in milliseconds."""
        quantiles = np.quantile(self.seconds, [0.5, 0.95, 0.99]) * 1e3
        names = ("p50 ms", "p95 ms", "p99 ms")
        return {
            "requests": len(self.seconds),
            "failed": self.failed,
            "mixed": self.mixed,
            "equal to offline": self.equal / len(self.seconds),
            **dict(zip(names, map(float, quantiles), strict=True)),
        }


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str
    token: str

    def version(self) -> str:
        """The version that a replica serves."""
        return str(requests.get(f"{self.url}/healthz", timeout=30).json()["version"])

    def count(self, metric: str) -> float:
        """The sum of a metric over replicas and labels."""
        lines = requests.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(metric))


@contextmanager
def serving(home: Path, *arguments: str) -> Iterator[Service]:
    """Run `alphafuse serve` with a home folder, and so a token, of its own."""
    (port,) = free_ports(1)
    code = "from cluster.cli.main import main; main()"
    settings = ["--set", f"serve.port={port}", "--set", "serve.reload_seconds=0.5"]
    with open(home / "serve.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", *arguments, *settings],
            env={**os.environ, "HOME": str(home)},
            stdout=log,
            stderr=log,
        )
    try:
        url, began = f"http://127.0.0.1:{port}", time.monotonic()
        while not _answers(url):
            if process.poll() is not None or time.monotonic() - began > START_SECONDS:
                raise SystemExit(f"the service does not start:\n{(home / 'serve.log').read_text()[-3000:]}")
            time.sleep(0.2)
        yield Service(url, (home / ".config/alphafuse/serve_token").read_text())
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/healthz", timeout=5).ok
    except requests.RequestException:
        return False


async def send_requests(
    service: Service,
    rate: float,
    histories: Sequence[list[str]],
    wanted: dict[str, list[list[tuple[str, float]]]],
    until: Callable[[float], bool],
) -> Load:
    """Send requests at random moments, `rate` in a second on average.

    Args:
        wanted: by version, the answer to each history.
        until: tells after some seconds whether it is enough.
    """
    found, generator, waiting = Load(), random.Random(1), set()
    headers = {"Authorization": f"Bearer {service.token}"}
    connector = aiohttp.TCPConnector(limit=100)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def send(due: float) -> None:
            number = generator.randrange(len(histories))
            try:
                body = {"history": histories[number], "k": K}
                async with session.post(f"{service.url}/recommend", json=body) as response:
                    answer = await response.json()
                    ok = response.status == 200
            except (aiohttp.ClientError, TimeoutError):
                ok = False
            found.seconds.append(time.perf_counter() - due)
            if not ok:
                found.failed += 1
                return
            found.versions.add(answer["version"])
            items = [(item["item_id"], item["score"]) for item in answer["items"]]
            offline = wanted[answer["version"]][number]
            found.mixed += not is_same(items, offline)
            found.equal += [item for item, _ in items] == [item for item, _ in offline]

        began = due = time.perf_counter()
        while not until(due - began):
            due += generator.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = asyncio.create_task(send(due))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        await asyncio.gather(*waiting)
    return found


def is_same(found: list[tuple[str, float]], wanted: list[tuple[str, float]]) -> bool:
    """Tell whether two lists are of one model: they have the same score at every place, up to rounding. (Items with
    equal scores may stand in each other's places.)"""
    scores, wanted_scores = ([score for _, score in items] for items in (found, wanted))
    return len(found) == len(wanted) and bool(np.allclose(scores, wanted_scores, rtol=0, atol=TOLERANCE))


def lists_of(recommender: Recommender, histories: Sequence[list[str]]) -> list[list[tuple[str, float]]]:
    """The offline answer to each history."""
    return [[(item.item_id, item.score) for item in items] for items in recommender.recommend(histories, K)]


def made_histories(items: int) -> list[list[str]]:
    """Histories of random items."""
    generator = np.random.default_rng(3)
    return [[f"item-{item}" for item in generator.integers(items, size=HISTORY)] for _ in range(HISTORIES)]


def under_load(
    folder: Path, workspace: Path, items: int, cpus: int, search: Search, rate: float, seconds: float
) -> dict[str, Any]:
    """A row of the table: the times of answers at a rate, each of which is compared with the offline list."""
    histories = made_histories(items)
    settings = ["--set", f"serve.search={search}", "--set", f"serve.cpus={cpus}"]
    with serving(folder, str(workspace), *settings) as service:
        wanted = {service.version(): lists_of(load(workspace, search), histories)}
        asyncio.run(send_requests(service, rate, histories, wanted, lambda passed: passed > 5))  # warms up
        before = service.count("alphafuse_serve_batches_total")
        found = asyncio.run(send_requests(service, rate, histories, wanted, lambda passed: passed > seconds))
        batches = service.count("alphafuse_serve_batches_total") - before
    case = {"case": f"{items:,} items, {search}", "requests/s": rate, **found.row()}
    return {**case, "requests a batch": len(found.seconds) / batches}


def swapped(folder: Path, items: int, dim: int, rate: float, swaps: int) -> dict[str, Any]:
    """A row of the table: swaps under load, the middle one of which is of a damaged export and must be refused."""
    registry, histories = Registry(str(folder / "registry")), made_histories(items)
    wanted, ids = {}, []
    for seed in range(swaps + 1):
        workspace = folder / f"version-{seed}"
        make_export(workspace, items, dim, seed)
        ids.append(registry.add(Workspace(str(workspace))).id)
        wanted[ids[-1]] = lists_of(load(workspace), histories)
    damaged = ids[1 + swaps // 2]
    _damage(folder / f"version-{1 + swaps // 2}" / "export")
    registry.promote(ids[0], None)
    with serving(folder, "--registry", registry.folder.uri) as service:
        with ThreadPoolExecutor(1) as pool:
            swapping = pool.submit(_swap, service, registry, ids[1:], damaged)
            found = asyncio.run(send_requests(service, rate, histories, wanted, lambda _: swapping.done()))
            swapping.result()
        last = service.version()
    refused, served = damaged not in found.versions, found.versions == {*ids} - {damaged}
    if not (refused and served and last == ids[-1]):
        raise SystemExit(f"served {sorted(found.versions)}, at the end {last}; {damaged} is damaged")
    return {"case": f"{len(ids) - 1} swaps, one damaged, {items:,} items", "requests/s": rate, **found.row()}


def _swap(service: Service, registry: Registry, ids: Sequence[str], damaged: str) -> None:
    """Promote one version after the other, each a second after the one before it serves or was refused."""

    def is_done(version: str) -> bool:
        if version == damaged:
            return service.count('alphafuse_serve_reloads_total{outcome="refused"') > 0
        return service.version() == version

    for version in ids:
        registry.promote(version, registry.alias("production"))
        began = time.monotonic()
        while not is_done(version):
            if time.monotonic() - began > SWAP_SECONDS:
                raise SystemExit(f"{version} is neither served nor refused after {SWAP_SECONDS:.0f} s")
            time.sleep(0.3)
        time.sleep(1.0)


def _damage(export: Path) -> None:
    """Change a byte in the middle of a file of vectors."""
    file = next(export.glob("vectors-*.safetensors"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def beside_exact(workspace: Path, items: int) -> list[dict[str, Any]]:
    """Rows of a table: recall and times of one history at a time, without HTTP."""
    histories, rows = made_histories(items), []
    exact: list[set[str]] = []
    for search in ("exact", "approximate"):
        recommender, seconds, lists = load(workspace, search), [], []
        for history in histories:
            began = time.perf_counter()
            lists.append({item.item_id for item in recommender.recommend([history], K)[0]})
            seconds.append(time.perf_counter() - began)
        exact = exact or lists
        recall = float(np.mean([len(found & wanted) / K for found, wanted in zip(lists, exact, strict=True)]))
        p50, p99 = (np.quantile(seconds, [0.5, 0.99]) * 1e3).tolist()
        rows.append({"search": search, f"recall@{K}": recall, "p50 ms": p50, "p99 ms": p99})
    return rows


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--few-items", type=int, default=5_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--cpus", type=int, default=2, help="threads, and serve.cpus of the cases under load")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each case under load")
    parser.add_argument("--swaps", type=int, default=10)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="alphafuse-serve-"))
    try:
        torch.set_num_threads(chosen.cpus)
        large, few = folder / "large", folder / "few"
        began = time.perf_counter()
        make_export(large, chosen.items, chosen.dim, 0, index=True)
        print(f"export with index: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        make_export(few, chosen.few_items, chosen.dim, 0)
        search = beside_exact(large, chosen.items)
        rows = [
            under_load(folder, large, chosen.items, chosen.cpus, "exact", 20, chosen.seconds),
            under_load(folder, few, chosen.few_items, chosen.cpus, "exact", 50, chosen.seconds),
            under_load(folder, large, chosen.items, chosen.cpus, "approximate", 50, chosen.seconds),
            {**swapped(folder, chosen.few_items, chosen.dim, 20, chosen.swaps), "requests a batch": None},
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    settings = {name: value for name, value in vars(chosen).items() if name != "json"}
    publish("Web service under load", {**settings, "history": HISTORY, "k": K}, rows, chosen.json)
    beside = chosen.json and chosen.json.with_stem(f"{chosen.json.stem}-search")
    publish("Approximate beside exact search, in one process", settings, search, beside)


if __name__ == "__main__":
    main()
