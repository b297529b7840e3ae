"""A made-up catalog and log of any size: what scaling is measured on. Block by block, at constant memory.

Items belong to topics. An item's text and language embedding tell its topic; users stay with a topic for a while,
prefer popular items, and often go on to the next item of the topic, which no text tells. So there is something to
learn from the texts and something from behaviour alone. A block depends on the settings and its number, nothing else.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from alphafuse.storage.matrices import to_lists

BLOCK = 8192
"""Items, or users, of a block."""
FOLLOW, STAY = 0.35, 0.5
"""Chance that the next item of the topic comes next, and that any item of the topic does; else a topic is drawn."""
TOPIC_EXPONENT, ITEM_EXPONENT = 0.8, 1.0
"""Of Zipf's law for the popularity of topics, and of the items inside of a topic."""
SPECTRUM_EXPONENT = 1.0
"""The variance of the embeddings along their j-th direction is proportional to j to the power of minus this."""
TOPIC_SHARE = 0.7
"""Share of that variance which the topics explain."""
SHORTEST = 5
"""Interactions of a user at least."""

_ITEMS, _TOPICS, _SPACE, _USERS = range(4)  # streams of random numbers
_REFLECTIONS = 3
_SYLLABLES = np.array(["ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu", "lan"])
_VOCABULARY = 16**3
_TOPIC_WORDS, _TOPIC_WORDS_PER_ITEM, _OTHER_WORDS_PER_ITEM = 24, 6, 4
_FIRST_SECOND, _YEAR, _DAY = 1_600_000_000, 31_536_000, 86_400


@dataclass(frozen=True)
class SyntheticData:
    """What is generated.

    Attributes:
        num_items, num_users: at least 2, at least 1.
        dim: of the language embeddings.
        interactions: mean length of a user's sequence, at least `SHORTEST`.
    """

    num_items: int
    num_users: int
    dim: int
    seed: int
    interactions: float = 12.0

    @property
    def num_topics(self) -> int:
        """About as many topics as items in each."""
        return max(1, round(math.sqrt(self.num_items)))

    def items(self, block: int) -> pa.Table:
        """A block of the catalog: item_id, title and text (strings), embedding (fixed-size list of float16)."""
        items = _members(self.num_items, block)
        topic_words, other_words = self._words(block)
        titles, texts = [], []
        for item, topic_word, other in zip(items, topic_words, other_words, strict=True):
            name = " ".join([*topic_word[:2], _spell(int(item))])
            titles.append(name.title())
            texts.append(" ".join([f"{name.title()}.", *topic_word[2:], *other]))
        vectors = self.embeddings(block).astype(np.float16)
        return pa.table({"item_id": _ids("i", items), "title": titles, "text": texts, "embedding": to_lists(vectors)})

    def embeddings(self, block: int) -> np.ndarray:
        """Language embeddings of a block of items: float32 [items, dim], of unit length.

        A Gaussian with the spectrum j^−SPECTRUM_EXPONENT and a mean that is not zero, in a basis that is not the
        coordinate axes.
        """
        items = _members(self.num_items, block)
        topics = self._topic_of(items)
        first, last = int(topics[0]), int(topics[-1])
        centers = np.stack([self._normal(_TOPICS, topic, 1)[0] for topic in range(first, last + 1)])
        own = self._normal(_ITEMS, block, len(items))
        own *= math.sqrt(1 - TOPIC_SHARE)
        own += math.sqrt(TOPIC_SHARE) * centers[topics - first]
        spectrum = np.arange(1, self.dim + 1, dtype=np.float32) ** (-SPECTRUM_EXPONENT / 2)
        own *= spectrum
        own[:, -1] += 0.5 * float(np.linalg.norm(spectrum))  # the mean
        for direction in self._reflections:
            own -= np.outer(own @ direction, 2 * direction)
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        return own

    def interactions_of(self, block: int) -> pa.Table:
        """The log of a block of users, user after user in time order: user_id, item_id (strings), timestamp
        (int64, seconds)."""
        users = _members(self.num_users, block)
        generator = self._generator(_USERS, block)
        lengths = SHORTEST - 1 + generator.geometric(1 / (self.interactions - SHORTEST + 1), len(users))
        times = _FIRST_SECOND + generator.integers(0, _YEAR, len(users))
        topics = self._draw_topics(generator, len(users))
        positions = self._draw_positions(generator, topics)
        steps = []
        for step in range(int(lengths.max())):
            if step:
                topics, positions = self._next(generator, topics, positions)
                times = times + 1 + generator.exponential(_DAY, len(users)).astype(np.int64)
            active = np.flatnonzero(lengths > step)
            steps.append((users[active], self._first_of(topics)[active] + positions[active], times[active]))
        user, item, time = (np.concatenate(column) for column in zip(*steps, strict=True))
        order = np.lexsort((time, user))
        return pa.table(
            {"user_id": _ids("u", user[order]), "item_id": _ids("i", item[order]), "timestamp": time[order]}
        )

    def _next(
        self, generator: np.random.Generator, topics: np.ndarray, positions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where users go from (topic, position in the topic)."""
        chance = generator.random(len(topics))
        next_topics = np.where(chance < FOLLOW + STAY, topics, self._draw_topics(generator, len(topics)))
        following = (positions + 1) % self._sizes(topics)
        return next_topics, np.where(chance < FOLLOW, following, self._draw_positions(generator, next_topics))

    def _draw_topics(self, generator: np.random.Generator, count: int) -> np.ndarray:
        cumulated = _zipf(self.num_topics, TOPIC_EXPONENT)
        return np.searchsorted(cumulated, generator.random(count) * cumulated[-1])

    def _draw_positions(self, generator: np.random.Generator, topics: np.ndarray) -> np.ndarray:
        sizes = self._sizes(topics)
        cumulated = _zipf(-(-self.num_items // self.num_topics), ITEM_EXPONENT)
        return np.searchsorted(cumulated, generator.random(len(topics)) * cumulated[sizes - 1])

    def _first_of(self, topics: np.ndarray) -> np.ndarray:
        """First item of each topic: topics are contiguous and of equal size, one more or less."""
        return -(-topics * self.num_items // self.num_topics)

    def _sizes(self, topics: np.ndarray) -> np.ndarray:
        return self._first_of(topics + 1) - self._first_of(topics)

    def _topic_of(self, items: np.ndarray) -> np.ndarray:
        return items * self.num_topics // self.num_items

    def _words(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Words of the items of a block: some of those of their topic, and any."""
        items = _members(self.num_items, block)
        generator = self._generator(_ITEMS, block, 1)
        chosen = generator.integers(0, _TOPIC_WORDS, (len(items), _TOPIC_WORDS_PER_ITEM))
        topic_words = (self._topic_of(items)[:, None] * _TOPIC_WORDS + chosen) * 2_654_435_761 % _VOCABULARY
        other = generator.integers(0, _VOCABULARY, (len(items), _OTHER_WORDS_PER_ITEM))
        vocabulary = _vocabulary()
        return vocabulary[topic_words], vocabulary[other]

    @functools.cached_property
    def _reflections(self) -> np.ndarray:
        """Unit vectors whose Householder reflections turn the axes into the basis: float32 [reflections, dim]."""
        directions = self._normal(_SPACE, 0, _REFLECTIONS)
        return directions / np.linalg.norm(directions, axis=1, keepdims=True)

    def _normal(self, stream: int, number: int, rows: int) -> np.ndarray:
        return self._generator(stream, number).standard_normal((rows, self.dim), np.float32)

    def _generator(self, *place: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *place])


def num_blocks(count: int) -> int:
    """Blocks that hold `count` items or users."""
    return -(-count // BLOCK)


def _members(count: int, block: int) -> np.ndarray:
    return np.arange(block * BLOCK, min(count, (block + 1) * BLOCK))


@functools.cache
def _zipf(count: int, exponent: float) -> np.ndarray:
    """Cumulated weights of ranks 1 … count: float64 [count]."""
    return np.cumsum(np.arange(1, count + 1, dtype=np.float64) ** -exponent)


@functools.cache
def _vocabulary() -> np.ndarray:
    return np.array([_spell(word, 3) for word in range(_VOCABULARY)], object)


def _spell(number: int, length: int = 1) -> str:
    """A number in syllables, different for different numbers."""
    digits: list[str] = []
    while number or len(digits) < length:
        number, digit = divmod(number, len(_SYLLABLES))
        digits.append(_SYLLABLES[digit])
    return "".join(reversed(digits))


def _ids(prefix: str, numbers: np.ndarray) -> pa.Array:
    return pa.array([f"{prefix}{number}" for number in numbers.tolist()])
