"""A trained model on its own: it decodes any recording, without the data that it was trained on.

Enters: a checkpoint, or what was exported of one. Leaves: a `Decoder`.
"""

from bm.decoder.decoder import Decoder
from bm.decoder.outcome import Embedding, Ranking
from bm.decoder.reading import Reading
from bm.decoder.share import export, load_state
from bm.decoder.stimulus import Stimulus, from_events, from_sound, from_table

__all__ = [
    "Decoder",
    "Embedding",
    "Ranking",
    "Reading",
    "Stimulus",
    "export",
    "from_events",
    "from_sound",
    "from_table",
    "load_state",
]
