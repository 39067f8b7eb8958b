"""Splits of continuous recordings by what was heard or seen in them: sentences, stories, sessions, subjects.

A recording of speech is cut into blocks, such as sentences, and whole blocks go to training, validation or test.
Windows are then taken inside of the blocks of one part only (`window_times.windows_inside`), so that neither a stimulus
nor a stretch of recording is on two sides.
"""

# N events, K blocks

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from neuroloaders.checks import check_fraction, check_int, check_number, check_option, invalid
from neuroloaders.events_table import EventTable
from neuroloaders.splits import SPLITS, hash_split

__all__ = ["BLOCK_COMPAT", "SHARED_STIMULI", "BlockSplit", "hold_out", "published_parts", "split_blocks"]

BLOCK_COMPAT = {
    None: "blocks that share a stimulus, in any recording, go to the same part",
    "published": "the rule of Défossez et al. 2023: joined texts are hashed, so that a sentence which is joined with"
    " other neighbours elsewhere may be on two sides",
}

SHARED_STIMULI = {
    "drop": "training and validation events whose stimulus is in a later part belong to no part",
    "keep": "a stimulus may be on several sides",
    "raise": "is an error",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class BlockSplit:
    """Blocks of recordings, and the part that each belongs to.

    Parameters
    ----------
    recording : ndarray of str, shape (K,)
        The recording of each block.
    start, stop : ndarray of float64, shape (K,)
        Begin and end in s; a block ends where the next one begins, the last of a recording never.
    uid : ndarray of str, shape (K,)
        What is heard or seen in it: the groups of its events, joined by ",".
    part : ndarray of str, shape (K,)
        'train', 'valid' or 'test'.
    """

    recording: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    uid: np.ndarray
    part: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def __repr__(self) -> str:
        counts = ", ".join(f"{int((self.part == part).sum())} {part}" for part in SPLITS)
        return f"BlockSplit({len(self)} blocks: {counts})"

    def block_of(self, events: EventTable) -> np.ndarray:
        """Return the number of the block in which each event begins; -1 before the first of a recording."""
        out = np.full(len(events), -1)
        for recording in np.unique(events.recording):
            blocks = np.flatnonzero(self.recording == recording)
            rows = np.flatnonzero(events.recording == recording)
            if len(blocks):
                place = np.searchsorted(self.start[blocks], events.start[rows], side="right") - 1
                out[rows] = np.where(place >= 0, blocks[place], -1)
        return out

    def parts_of(self, events: EventTable) -> np.ndarray:
        """Return the part of each event, shape (N,); '' where it begins before the first block."""
        block = self.block_of(events)
        return np.where(block >= 0, self.part[block], "")

    def of_part(self, part: str) -> BlockSplit:
        """Return the blocks of one part."""
        rows = self.part == check_option("part", part, SPLITS)
        return BlockSplit(**{name: getattr(self, name)[rows] for name in ("recording", "start", "stop", "uid", "part")})


def split_blocks(
    events: EventTable,
    *,
    kind: str = "sentence",
    min_block_s: float = 6.0,
    valid: float = 0.1,
    test: float = 0.2,
    seed: int = 12,
    compat: str | None = None,
) -> BlockSplit:
    """Cut recordings into blocks and send each to a part by a hash of what is in it.

    Parameters
    ----------
    events : EventTable
        Of any kinds; `split_group` says what must stay together.
    kind : str
        The events at which blocks begin.
    min_block_s : float
        Shorter blocks are joined with those that follow, until they last this long; 0 joins nothing. A window of 3 s
        does not fit into a sentence of 2 s.
    valid, test : float
        Expected shares.
    seed : int
        Names the split.
    compat : str, optional
        A key of `BLOCK_COMPAT`.

    Returns
    -------
    BlockSplit
        Ordered by recording and time. The same text has the same part in all recordings, of all subjects and
        sessions.

    Raises
    ------
    ValueError
        If there is no event of that kind.

    Notes
    -----
    Where sentences are joined, blocks that have one in common are one group, and groups are hashed: two recordings with
    the same sentences in the same order have the same groups, and those with another order have larger ones. With
    ``compat="published"`` the joined text is hashed by `published_parts` [1]_.

    References
    ----------
    .. [1] Défossez et al., Nature Machine Intelligence 5 (2023), doi:10.1038/s42256-023-00714-5.

    Examples
    --------
    >>> events = EventTable(
    ...     start=[0.0, 4.0, 9.0], recording="01", kind="sentence", stimulus=["a", "b", "c"]
    ... )
    >>> split_blocks(events, min_block_s=6).uid.tolist()
    ['a,b', 'c']
    """
    check_option("compat", compat, BLOCK_COMPAT)
    min_block_s = check_number("min_block_s", min_block_s, at_least=0)
    beginnings = events.where(kind=kind)
    if len(beginnings) == 0:
        kinds = ", ".join(map(repr, np.unique(events.kind).tolist())) or "none"
        raise invalid("kind", "be a kind of event that is there", f"{kind!r}", f"There are {kinds}.")
    rows: list[tuple[str, float, float, list[str]]] = []
    for recording in np.unique(beginnings.recording):
        here = np.flatnonzero(beginnings.recording == recording)
        here = here[np.argsort(beginnings.start[here], kind="stable")]
        starts, groups = beginnings.start[here], beginnings.split_group[here].tolist()
        ends = np.append(starts[1:], np.inf)
        first, joined = 0, []
        for k, end in enumerate(ends):
            joined.append(groups[k])
            if end - starts[first] >= min_block_s:
                rows.append((str(recording), float(starts[first]), float(end), joined))
                first, joined = k + 1, []
    uid = np.array([",".join(joined) for *_, joined in rows])
    if compat == "published":
        part = published_parts(uid, valid=valid, test=test, seed=seed)
    else:
        part = hash_split(_components([joined for *_, joined in rows]), valid=valid, test=test, seed=seed)
    return BlockSplit(
        recording=np.array([row[0] for row in rows]),
        start=np.array([row[1] for row in rows]),
        stop=np.array([row[2] for row in rows]),
        uid=uid,
        part=part,
    )


def published_parts(uids: Iterable[str], *, valid: float = 0.1, test: float = 0.2, seed: int = 12) -> np.ndarray:
    """Assign texts to parts exactly as Défossez et al. 2023 do.

    Parameters
    ----------
    uids : iterable of str, length n
        Texts of the blocks.
    valid, test : float
        Expected shares.
    seed : int
        Added to the hash; 12 in the paper.

    Returns
    -------
    ndarray of str, shape (n,)
        'test' if Python's generator, seeded with the SHA-256 of the text plus `seed`, draws a number below `test`,
        'valid' below ``test + valid``, else 'train'.

    Examples
    --------
    >>> published_parts(["a", "b", "3"]).tolist()
    ['test', 'train', 'valid']
    """
    valid, test = check_fraction("valid", valid), check_fraction("test", test)
    check_number("valid + test", valid + test, at_most=1 + 1e-12, advice="What is left is for training.")
    seed = check_int("seed", seed)
    out = []
    for uid in uids:
        score = random.Random(int(hashlib.sha256(str(uid).encode()).hexdigest(), 16) + seed).random()
        out.append("test" if score < test else "valid" if score < test + valid else "train")
    return np.array(out, dtype="<U5")


def hold_out(
    events: EventTable,
    values: Iterable[str],
    *,
    test: Iterable[str],
    valid: Iterable[str] = (),
    shared: str = "drop",
) -> np.ndarray:
    """Hold out sessions, subjects or stories: the part of each event from a value that it has.

    Parameters
    ----------
    events : EventTable
        N events.
    values : sequence of str, length N
        What is held out by, one for each event: its session, its subject, its story.
    test, valid : iterable of str
        The values that are tested, and those that choices are made on; all others are for training.
    shared : str
        A key of `SHARED_STIMULI`: what happens to a `split_group` that is on several sides, as a story that every
        subject hears.

    Returns
    -------
    ndarray of str, shape (N,)
        'train', 'valid', 'test', or '' for events of no part.

    Raises
    ------
    ValueError
        If a value is not there, is in two parts, or a part would be empty.
    """
    check_option("shared", shared, SHARED_STIMULI)
    column = np.asarray(list(values), dtype=str)
    if len(column) != len(events):
        raise invalid("values", f"have one entry for each of {len(events)} events", f"{len(column)}")
    wanted = {"test": set(map(str, test)), "valid": set(map(str, valid))}
    twice = wanted["test"] & wanted["valid"]
    if twice:
        raise invalid("valid", "have nothing in common with `test`", repr(min(twice)))
    part = np.full(len(events), "train", dtype="<U5")
    for name, chosen in wanted.items():
        absent = chosen - set(column.tolist())
        if absent or (name == "test" and not chosen):
            there = ", ".join(map(repr, np.unique(column)[:5].tolist()))
            came = repr(min(absent)) if absent else "none"
            raise invalid(name, "name values that are there", came, f"There are {there}.")
        part[np.isin(column, list(chosen))] = name
    part = _SHARING[shared](events.split_group, part)
    if not (part == "train").any():
        advice = "Hold out fewer, or pass shared='keep' and say so beside the number."
        raise invalid("test", "leave something to train on", "everything is held out or shared", advice)
    return part


def _drop(group: np.ndarray, part: np.ndarray) -> np.ndarray:
    part = part.copy()
    tested = np.isin(group, group[part == "test"])
    part[tested & (part != "test")] = ""
    part[np.isin(group, group[part == "valid"]) & (part == "train")] = ""
    return part


def _refuse(group: np.ndarray, part: np.ndarray) -> np.ndarray:
    for name in ("train", "valid"):
        later = part == "test" if name == "valid" else np.isin(part, ["valid", "test"])
        both = np.intersect1d(group[part == name], group[later])
        if len(both):
            advice = "Pass shared='drop' to train without them."
            raise invalid("test", f"share no stimulus with {name}", f"{len(both)}, the first {both[0]!r}", advice)
    return part


_SHARING: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "drop": _drop,
    "keep": lambda group, part: part,
    "raise": _refuse,
}


def _components(blocks: list[list[str]]) -> list[str]:
    """Return a name for the group of each block: blocks with a text in common are one group."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        while parent.setdefault(text, text) != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    for texts in blocks:
        for text in texts:
            a, b = root(texts[0]), root(text)
            # The smaller name stands for both, so that the name does not depend on the order of recordings.
            parent[max(a, b)] = min(a, b)
    return [root(texts[0]) for texts in blocks]
