"""Batches: what waits is ranked together, in the order in which it came."""

from __future__ import annotations

import asyncio

from jobs.serving.batching import Batches


class Doubling:
    """Doubles numbers, each batch when it is let to; refuses batches that hold a 13."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_end = asyncio.Event()

    async def __call__(self, batch: list[int]) -> list[int]:
        self.batches.append(batch)
        await self.may_end.wait()
        if 13 in batch:
            raise ValueError("13")
        return [2 * number for number in batch]


def test_a_batch_is_what_came_during_the_one_before() -> None:
    async def run() -> None:
        double = Doubling()
        batches: Batches[int, int] = Batches(double, largest=3)
        asked = []
        for number in range(6):
            asked.append(asyncio.create_task(batches.ask(number)))
            await asyncio.sleep(0)
        assert double.batches == [[0]]  # at once, though it is alone
        double.may_end.set()
        assert await asyncio.gather(*asked) == [0, 2, 4, 6, 8, 10]
        assert double.batches == [[0], [1, 2, 3], [4, 5]]
        assert await batches.ask(9) == 18

    asyncio.run(run())


def test_clients_that_leave_and_batches_that_fail_are_no_harm_to_others() -> None:
    async def run() -> None:
        double = Doubling()
        batches: Batches[int, int] = Batches(double, largest=2)
        asked = [asyncio.create_task(batches.ask(number)) for number in (1, 2, 3, 13, 4, 5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for left in (asked[1], asked[4]):  # one of them is being ranked
            left.cancel()
        await asyncio.sleep(0)
        double.may_end.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert (found[0], found[5]) == (2, 10)
        assert [type(each) for each in found[1:5]] == [
            asyncio.CancelledError, ValueError, ValueError, asyncio.CancelledError
        ]  # fmt: skip
        assert double.batches == [[1, 2], [3, 13], [5]]

    asyncio.run(run())
