"""What the codes in the logs of MOUS mean: contexts, fixation crosses, sound files, words.

Enters: lines of a log (`type`, `code`). Leaves: for each, what it is, the trigger that was sent
with it, and its text. The words of sentences have codes like "1 Het 300" (trigger, word, ms),
those of word lists "3Het 300".
"""

import re

import pandas as pd

CONTEXTS = {"ZINNEN": "sentence", "WOORDEN": "word_list"}
"""Instruction before a block of five items, and what these are."""
INSTRUCTION, FIXATION, PAUSE, QUESTION = 10, 20, 30, 40
"""Triggers of lines whose code has no number."""
CONDITION_OF = {trigger: "sentence" for trigger in (1, 2, 5, 6)}
CONDITION_OF |= {trigger: "word_list" for trigger in (3, 4, 7, 8)}
"""Condition by trigger: of the first word or any other (odd), or of the target word (even)."""
SOUND = re.compile(r"(?:(\d+)\s+)?Start File\s+.*?(\d+)\.wav", re.IGNORECASE)
ONSET = re.compile(r"(\d+)\s+Audio onset", re.IGNORECASE)
NUMBERED = re.compile(r"(\d+)\s")
WORD = re.compile(r"([1-8])\s*(.+?)\s*(\d+)")
PLAIN = (("FIX", "fixation", FIXATION), ("QUESTION", "question", QUESTION))
NO_WORDS = (*CONTEXTS, "FIX", "QUESTION", "Response", "ISI", "blank")
"""Parts of a code that, as published, make it something else than a word."""


def read_codes(rows: pd.DataFrame) -> pd.DataFrame:
    """Read each code as a whole.

    Returns
    -------
    DataFrame with the index of `rows`: ``what`` (context, fixation, sound, onset, word or other),
    ``trigger`` (0: none), ``text`` (condition of a context, number of a sound file, word), and
    ``condition`` that the context before it announces ("" before the first).
    """
    meanings = [_meaning(*row) for row in zip(rows["type"], rows["code"], strict=True)]
    codes = pd.DataFrame(
        meanings, columns=["what", "trigger", "text"], index=rows.index, dtype=object
    )
    codes["trigger"] = codes["trigger"].astype(int)
    announced = codes["text"].where(codes["what"] == "context")
    codes["condition"] = announced.ffill().fillna("")
    return codes


def read_codes_as_published(rows: pd.DataFrame) -> pd.DataFrame:
    """Read codes by what they contain: whatever contains nothing else that is known is a word.

    Same columns as `read_codes`, of which ``trigger`` is 0.
    """
    codes = read_codes(rows)
    plain = rows["code"].str.strip("0123456789 ")
    has = {part: rows["code"].str.contains(part, regex=False) for part in NO_WORDS}
    is_word = (plain != "") & (plain != "pause") & ~plain.str.startswith("PULSE MODE")
    for found in has.values():
        is_word &= ~found
    is_sound = codes["what"].isin(["sound", "onset"])
    what = pd.Series("other", index=rows.index).mask(is_word, "word")
    what = what.mask(is_sound, codes["what"])
    text = plain.mask(is_sound, codes["text"])
    for name, announced in CONTEXTS.items():
        what, text = what.mask(has[name], "context"), text.mask(has[name], announced)
    what = what.mask(has["FIX"], "fixation")
    condition = text.where(what == "context").ffill().fillna("init")
    return pd.DataFrame({"what": what, "trigger": 0, "text": text, "condition": condition})


def _meaning(kind: str, code: str) -> tuple[str, int, str]:
    if code in CONTEXTS:
        return "context", INSTRUCTION, CONTEXTS[code]
    for start, what, trigger in PLAIN:
        if code == start or code.startswith(f"{start} "):
            return what, trigger, ""
    if match := SOUND.fullmatch(code):
        return "sound", int(match[1] or 14), match[2]
    if match := ONSET.fullmatch(code):
        return "onset", int(match[1]), ""
    if kind == "Picture" and (match := WORD.fullmatch(code)):
        return "word", int(match[1]), match[2]
    if code.lower() == "pause":
        return "other", PAUSE, ""
    match = NUMBERED.match(code)
    return "other", int(match[1]) if match else 0, ""
