"""Phonemes: one inventory for English and Dutch, whatever alphabet a study writes them in.

Enters: phoneme events, labelled in ARPAbet (English; with or without stress, "AH0", and position in
the word, "ah_B"), SAMPA (Dutch, as WebMAUS and the Corpus Gesproken Nederlands write it) or IPA (as
espeak-ng does). Leaves: the class of each phoneme. A sound that both languages have is one class.
"""

import logging
import re
from collections import Counter
from typing import ClassVar

import numpy as np
import pandas as pd

from bm.core.messages import DataError
from bm.features.base import EventFeature, register
from bm.features.language import AUTO, event_languages, language_code

logger = logging.getLogger(__name__)

# IPA, names in English studies, names in Dutch studies ("." if there are none but the IPA). The
# order makes the class: add new sounds at the end, and raise Phoneme.version.
_TABLE = r"""
p    .                  .
b    .                  .
t    .                  .
d    .                  .
k    .                  .
ɡ    g                  g
f    .                  .
v    .                  .
θ    th                 T
ð    dh                 D
s    .                  .
z    .                  .
ʃ    sh                 S
ʒ    zh                 Z
x    .                  χ
ɣ    .                  G,ʝ
h    hh,hv,ɦ            ɦ
tʃ   ch,t͡ʃ              tS,t͡ʃ
dʒ   jh,d͡ʒ              dZ,d͡ʒ
m    em,m̩               m̩
n    en,nx,n̩            n̩
ɲ    .                  J,nj,n'
ŋ    ng,eng,ŋ̍           N
l    el,l̩,əl,ɫ          ɫ,l̩
r    ɹ                  R,ɹ,ʀ,ʁ
w    wh,ʍ               .
ʋ    .                  w,v\,P
j    y                  .
ɾ    dx                 4
ʔ    q                  ?
ɑ    aa,ɑː,ɑːɹ,ɒ        A,ɒ
æ    ae,a               {
ʌ    ah                 V
ɔ    ao,ɔː,ɔːɹ          O
ɛ    eh,e,ɛɹ            E
ɪ    ih,ix,ᵻ,ɨ,ɪɹ       I
i    iy,iː,iə           i:,iː,iʊ
ʊ    uh,ʊɹ              U
u    uw,ux,uː,ʉ         u:,uː
ə    ax,ax-h,ɐ          @
ɝ    er,axr,ɜː,ɜ,ɚ      3:,ɜː
aɪ   ay,aɪə,aɪɚ         aI
aʊ   aw                 aU
eɪ   ey                 eI
oʊ   ow,əʊ,o            @U,əʊ
ɔɪ   oy                 OI
aː   .                  a:,a
eː   .                  e:,e,eʊ
øː   .                  2:,2,ø
oː   .                  o:,o
ʏ    .                  Y,ɵ
y    .                  y:,yː,yʊ
ɛi   .                  Ei,E+,ɛɪ
œy   .                  9y,Y+,ʌy
ʌu   .                  Au,A+,ʌʊ,ɑu,ɑʊ
ɛː   eə                 E:,eə
œː   .                  9:,9,œ
ɔː   .                  O:
ɑ̃    .                  A~
ɛ̃    .                  E~
ɔ̃    .                  O~
œ̃    .                  Y~,9~
"""
_ROWS = [line.split() for line in _TABLE.strip().splitlines()]
INVENTORY = tuple(row[0] for row in _ROWS)
"""The sounds, in IPA; sound k is class k + 1."""
UNKNOWN = len(INVENTORY) + 1
"""Class of labels that aren't in the inventory."""
PAUSES = frozenset({"sil", "sp", "pau", "epi", "h#", "#", "_", "<p:>", "<eps>"})
"""Labels of silence: class 0, as where nothing is heard."""

_IPA = {row[0]: index + 1 for index, row in enumerate(_ROWS)}
_CLASSES = {
    language: _IPA | {name: i + 1 for i, row in enumerate(_ROWS) for name in row[column].split(",")}
    for column, language in ((1, "en"), (2, "nl"))
}
_POSITION = re.compile("_[BIES]$")
_STRESS = re.compile('[ˈˌ"%]')
_ARPABET_STRESS = re.compile("[0-2]$")


@register
class Phoneme(EventFeature):
    """Class of the phoneme: 1 and up as in `INVENTORY`, `UNKNOWN` for any other label, 0 for none.

    Parameters
    ----------
    lang : language of all phonemes, or "auto": the events tell. Labels of other languages than
        English and Dutch are read as IPA.
    """

    event_kind = "phoneme"
    normalizable = False
    cardinality = UNKNOWN + 1

    def __init__(self, lang: str = AUTO):
        self.lang = lang if lang == AUTO else language_code(lang)

    def values(self, events: pd.DataFrame) -> np.ndarray:
        """[n_events, 1] classes.

        Raises
        ------
        DataError : no label is known.
        """
        labels = events["phoneme"].astype(str)
        languages = event_languages(events, self.lang, self.name)
        pairs = list(zip(labels, languages, strict=True))
        classes = {pair: phoneme_class(*pair) for pair in set(pairs)}
        unknown = Counter(label for label, language in pairs if classes[label, language] == UNKNOWN)
        if unknown:
            counts = ", ".join(f"{label!r} ({n})" for label, n in unknown.most_common(20))
            if unknown.total() == len(pairs):
                raise DataError(
                    f"{self.name}: none of the {len(pairs)} labels is known: {counts}. English is "
                    "read as ARPAbet, Dutch as SAMPA, and any language as IPA; is the language "
                    f"({', '.join(languages.unique())}) right?"
                )
            logger.warning(
                "%s: %d of %d labels are not in the inventory and count as unknown: %s%s",
                self.name, unknown.total(), len(pairs), counts, ", ..." * (len(unknown) > 20),
            )  # fmt: skip
        return np.array([classes[pair] for pair in pairs], dtype=np.float32)[:, None]


@register
class PhonemePulse(EventFeature):
    """1 at the first sample of each phoneme, whatever its label, else 0; pauses have none."""

    event_kind = "phoneme"
    normalizable = False
    only_onset: ClassVar[bool] = True

    def values(self, events: pd.DataFrame) -> np.ndarray:
        """[n_events, 1] ones, zero for pauses."""
        pauses = events["phoneme"].astype(str).str.lower().isin(PAUSES)
        return 1 - pauses.to_numpy(dtype=np.float32)[:, None]


def phoneme_class(label: str, language: str) -> int:
    """Class of a phoneme; 0 for a pause, `UNKNOWN` if the inventory doesn't have it."""
    if label.lower() in PAUSES:
        return 0
    name = _STRESS.sub("", _POSITION.sub("", label))
    if language == "en":
        name = _ARPABET_STRESS.sub("", name).lower()
    return _CLASSES.get(language, _IPA).get(name, UNKNOWN)
