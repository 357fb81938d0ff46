"""Cut sounds where blocks begin and end, so that no feature hears across a border."""

from collections import deque
from collections.abc import Hashable, Iterable
from typing import Any

import pandas as pd

MARGIN = 0.1


def cut_sounds_at_blocks(
    events: pd.DataFrame, blocks: pd.DataFrame, margin: float = MARGIN
) -> pd.DataFrame:
    """Replace each sound by its pieces between block borders.

    A border within `margin` seconds of a sound's start or end doesn't cut it. What lies outside all
    blocks stays as pieces of its own. ``offset`` tells where in its file each piece begins.

    Returns
    -------
    The event table with the sounds replaced, in time order.
    """
    is_sound = events["kind"] == "sound"
    queue = deque(events[is_sound].to_dict("records"))
    pieces: list[dict[Hashable, Any]] = []
    for begin, end in _spans(blocks):
        while queue and queue[0]["start"] < end - margin:
            head = queue.popleft()
            stop = head["start"] + head["duration"]
            if stop <= begin + margin:
                pieces.append(head)
            elif head["start"] <= begin - margin:
                first, rest = _cut(head, begin)
                pieces.append(first)
                queue.appendleft(rest)
            elif stop > end + margin:
                first, rest = _cut(head, end)
                pieces.append(first)
                queue.appendleft(rest)
            else:
                pieces.append(head)
    pieces.extend(queue)
    if not pieces:
        return events
    dtypes = {**events.dtypes.to_dict(), "start": float, "duration": float, "offset": float}
    cut = pd.DataFrame(pieces, columns=events.columns).astype(dtypes)
    both = pd.concat([cut, events[~is_sound]])
    return both.sort_values("start", kind="stable", ignore_index=True)


def _spans(blocks: pd.DataFrame) -> Iterable[tuple[float, float]]:
    starts = blocks["start"].to_numpy(float)
    return zip(starts, starts + blocks["duration"].to_numpy(float), strict=True)


def _cut(
    sound: dict[Hashable, Any], when: float
) -> tuple[dict[Hashable, Any], dict[Hashable, Any]]:
    length = when - sound["start"]
    first = {**sound, "duration": length}
    rest = {
        **sound,
        "start": when,
        "duration": sound["duration"] - length,
        "offset": sound["offset"] + length,
    }
    return first, rest
