"""A recording: raw signal, events, and the preprocessed signal kept in the cache."""

from bm.recordings.preprocess import Preprocessing
from bm.recordings.recording import Recording
from bm.recordings.sensors import Sensors
from bm.recordings.signal import Signal

__all__ = ["Preprocessing", "Recording", "Sensors", "Signal"]
