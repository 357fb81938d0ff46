"""Names of languages: whatever a study calls them, features know them by two letters (ISO 639-1).

Enters: "english", "en", "eng", "en-US", "dut", "Nederlands", ... Leaves: "en", "nl", ...
"""

import pandas as pd

from bm.core.messages import DataError, did_you_mean

AUTO = "auto"

# ISO 639-1: ISO 639-2 and 639-3, English name, own name.
_NAMES = {
    "ar": "ara arabic",
    "ca": "cat catalan català",
    "cs": "ces cze czech čeština",
    "da": "dan danish dansk",
    "de": "deu ger german deutsch",
    "el": "ell gre greek ελληνικά",
    "en": "eng english",
    "es": "spa spanish castilian español",
    "fi": "fin finnish suomi",
    "fr": "fra fre french français",
    "he": "heb hebrew",
    "hi": "hin hindi",
    "hr": "hrv croatian hrvatski",
    "hu": "hun hungarian magyar",
    "it": "ita italian italiano",
    "ja": "jpn japanese",
    "ko": "kor korean",
    "lt": "lit lithuanian",
    "mk": "mkd mac macedonian",
    "nb": "nob nor no norwegian norsk bokmål",
    "nl": "nld dut dutch flemish nederlands vlaams",
    "pl": "pol polish polski",
    "pt": "por portuguese português",
    "ro": "ron rum romanian",
    "ru": "rus russian",
    "sl": "slv slovenian slovene",
    "sv": "swe swedish svenska",
    "tr": "tur turkish türkçe",
    "uk": "ukr ukrainian",
    "zh": "zho chi cmn chinese mandarin",
}
_CODES = {name: code for code, names in _NAMES.items() for name in (code, *names.split())}


def language_code(language: object) -> str:
    """Two letters that stand for a language; a country ("en-US", "nl_BE") is left out.

    Raises
    ------
    ValueError : the language isn't known by that name.
    """
    name = str(language).strip().lower()
    code = _CODES.get(name) or _CODES.get(name.replace("_", "-").split("-")[0])
    if code is None:
        raise ValueError(f"language={str(language)!r} is not known. {did_you_mean(name, _CODES)}")
    return code


def event_languages(events: pd.DataFrame, lang: str, feature: str) -> "pd.Series[str]":
    """Code of the language of each event.

    Parameters
    ----------
    events : with a column ``language``, unless `lang` names one language for all.
    lang : a language, or "auto": the column decides.
    feature : for messages.

    Raises
    ------
    ValueError : `lang`, or a language in the events, isn't known.
    DataError : "auto", and there is an event without a language.
    """
    if lang != AUTO:
        return pd.Series(language_code(lang), index=events.index, dtype=str)
    given = events.get("language", pd.Series(None, index=events.index, dtype=object))
    if given.isna().any():
        raise DataError(
            f"{feature}: {int(given.isna().sum())} of {len(events)} events have no language. Name "
            f"it in the selection, or for all events: dset.features_params.{feature}.lang=en"
        )
    codes = {language: language_code(language) for language in given.unique()}
    return given.map(codes).astype(str)
