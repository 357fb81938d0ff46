"""Controls: the same experiment with the answer taken out of the data must land at chance."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bm.core.hashing import text_id
from bm.core.messages import check_choice
from bm.segments.prepare import Prepared

CONTROLS = ("none", "noise", "shuffled")


def apply_control(prepared: Sequence[Prepared], control: str, seed: int) -> list[Prepared]:
    """Replace the brain signals by ones that can't know what was heard.

    Parameters
    ----------
    prepared : recordings.
    control : "none": the signals as they are; "noise": each recording with the phases of its
        spectrum drawn at random, the same for all sensors, so that spectra and covariance stay;
        "shuffled": each recording shifted in a circle by a random third to two thirds of its
        length, so that the pairs of signal and sound are wrong but all else is real.
    seed : of the random draws.
    """
    check_choice("dset.control", control, CONTROLS)
    if control == "none":
        return list(prepared)
    changed = []
    for item in prepared:
        generator = np.random.default_rng([seed, text_id(control, str(item.recording))])
        data = np.asarray(item.signal.data)
        if control == "noise":
            data = _randomise_phases(data, generator)
        else:
            data = np.roll(data, int(generator.uniform(1 / 3, 2 / 3) * len(data)), axis=0)
        changed.append(replace(item, signal=replace(item.signal, data=data)))
    return changed


def _randomise_phases(data: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """[T, C] noise of the same spectrum and cross-spectra."""
    spectrum = np.fft.rfft(data, axis=0)
    turns = generator.random(len(spectrum))
    turns[0] = 0.0  # the mean, and below the highest frequency of an even length, are real numbers
    turns[-1] *= len(data) % 2
    phases = np.exp(2j * np.pi * turns)
    return np.fft.irfft(spectrum * phases[:, None], len(data), axis=0).astype(np.float32)
