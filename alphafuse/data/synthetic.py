"""Generates a catalog and a log of any size, for measurements of scaling; block by block, in constant memory.

Each item belongs to a topic, which its text and its language embedding reveal. Users stay with a topic for a while,
prefer popular items, and often go on to the next item of the topic, which no text reveals. So a model can learn
something from the texts, and something from behaviour alone. A block depends on the settings and its number alone.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from alphafuse.storage.matrices import to_lists

BLOCK = 8192
"""Number of items, or users, in a block."""
FOLLOW, STAY = 0.35, 0.5
"""Probabilities that a user goes on to the next item of the topic (FOLLOW), or to a random item of the topic (STAY);
otherwise a topic is drawn."""
TOPIC_EXPONENT, ITEM_EXPONENT = 0.8, 1.0
"""Exponents of Zipf's law, for the popularity of the topics and of the items within a topic."""
SPECTRUM_EXPONENT = 1.0
"""Decay of the spectrum: the variance along direction j is proportional to j^−SPECTRUM_EXPONENT."""
TOPIC_SHARE = 0.7
"""Share of the embeddings' variance that the topics explain."""
SHORTEST = 5
"""Fewest interactions of a user."""

_ITEMS, _TOPICS, _SPACE, _USERS = range(4)  # streams of random numbers
_REFLECTIONS = 3
_SYLLABLES = np.array(["ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu", "lan"])
_VOCABULARY = 16**3
_TOPIC_WORDS, _TOPIC_WORDS_PER_ITEM, _OTHER_WORDS_PER_ITEM = 24, 6, 4
_FIRST_SECOND, _YEAR, _DAY = 1_600_000_000, 31_536_000, 86_400


@dataclass(frozen=True)
class SyntheticData:
    """A generated catalog and log.

    Attributes:
        num_items: number of items, at least 2.
        num_users: number of users, at least 1.
        dim: dimension of the language embeddings.
        seed: random seed.
        interactions: mean length of a user's sequence, at least `SHORTEST`.
    """

    num_items: int
    num_users: int
    dim: int
    seed: int
    interactions: float = 12.0

    @property
    def num_topics(self) -> int:
        """Number of topics, about as many as there are items in each topic."""
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
        """The next topics of users and positions in them, given the present ones: both [users]."""
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
        """First item of each topic; a topic is a range of items, and sizes of topics differ by one at most."""
        return -(-topics * self.num_items // self.num_topics)

    def _sizes(self, topics: np.ndarray) -> np.ndarray:
        return self._first_of(topics + 1) - self._first_of(topics)

    def _topic_of(self, items: np.ndarray) -> np.ndarray:
        return items * self.num_topics // self.num_items

    def _words(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Words of the items of a block: some from the words of the topic, and some from the whole vocabulary."""
        items = _members(self.num_items, block)
        generator = self._generator(_ITEMS, block, 1)
        chosen = generator.integers(0, _TOPIC_WORDS, (len(items), _TOPIC_WORDS_PER_ITEM))
        topic_words = (self._topic_of(items)[:, None] * _TOPIC_WORDS + chosen) * 2_654_435_761 % _VOCABULARY
        other = generator.integers(0, _VOCABULARY, (len(items), _OTHER_WORDS_PER_ITEM))
        vocabulary = _vocabulary()
        return vocabulary[topic_words], vocabulary[other]

    @functools.cached_property
    def _reflections(self) -> np.ndarray:
        """Unit vectors whose Householder reflections rotate the coordinate axes: float32 [reflections, dim]."""
        directions = self._normal(_SPACE, 0, _REFLECTIONS)
        return directions / np.linalg.norm(directions, axis=1, keepdims=True)

    def _normal(self, stream: int, number: int, rows: int) -> np.ndarray:
        return self._generator(stream, number).standard_normal((rows, self.dim), np.float32)

    def _generator(self, *place: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *place])


def num_blocks(count: int) -> int:
    """Number of blocks that `count` items or users fill."""
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
    """Writes a number in syllables; different numbers give different words."""
    digits: list[str] = []
    while number or len(digits) < length:
        number, digit = divmod(number, len(_SYLLABLES))
        digits.append(_SYLLABLES[digit])
    return "".join(reversed(digits))


def _ids(prefix: str, numbers: np.ndarray) -> pa.Array:
    return pa.array([f"{prefix}{number}" for number in numbers.tolist()])
