"""Simulated listeners: what their sensors would record of a story. No real data anywhere.

Enters: the audio and word onsets of a story. Leaves: each listener's clean response, and brain and
sensor noise of known statistics. All that is random comes from generators seeded by names.

A listener has dipoles in temporal and frontal areas of both hemispheres, with positions,
orientations, strengths and latencies of their own; MNE's spherical forward model carries them to
the sensors. Each dipole follows one group of mel bands, or the word onsets, with a response that
peaks at about 50, 100 or 200 ms.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import mne
import numpy as np
import scipy  # its parts are imported when they are used: transforms take long

from bm.core.hashing import text_id
from bm.studies.simulated.headmodel import ORIGIN, dipole_fields, sensor_info, tangential

SAMPLE_RATE = 160.0
"""Native rate of simulated recordings in Hz: a whole number of audio samples (100) per sample."""
N_BANDS = 8
LOWEST_BAND, HIGHEST_BAND = 80.0, 7000.0
AUDIO_WINDOW = 400
FLOOR = 1e-5

PEAKS = ((0.05, 0.018, 1.0), (0.1, 0.028, -1.0), (0.2, 0.05, 0.8))
"""Latency, width (s.d.) and strength of the responses, in seconds."""
WORD_STRENGTH = 30.0
"""Of the response to a word onset, which lasts a moment, beside those to bands, which go on."""
AREAS = {
    0: np.array([0.050, 0.005, 0.060]),  # auditory cortex: the earliest response
    1: np.array([0.058, -0.015, 0.062]),  # behind it
    2: np.array([0.050, 0.030, 0.050]),  # in front of it
    "words": np.array([0.040, 0.055, 0.065]),  # inferior frontal
}
"""Places on the right, metres in head coordinates; the left is their mirror image."""
TONOTOPY = np.array([0.0, 0.006, -0.004])
"""From the place of one pair of bands to that of the next, in metres."""
JITTER, LATENCY_JITTER, STRENGTH_JITTER = 0.004, 0.006, 0.3
"""Differences between listeners: s.d. in metres, seconds, and of the logarithm."""

N_NOISE_DIPOLES = 200
NOISE_CORNER = 0.5
ALPHA_RATE, ALPHA_WIDTH, ALPHA_SHARE = 10.0, 1.0, 0.15
SENSOR_NOISE = 0.7
"""White noise of a sensor, over the root mean square of brain noise over all sensors."""
BRAIN_NOISE = {"meg": 3e-13, "eeg": 1e-5}
"""Root mean square of brain noise over all sensors, in T and V."""


def generator(*names: object) -> np.random.Generator:
    """Generator of random numbers that is the same for the same names, in every process."""
    return np.random.default_rng(text_id("simulated", *names))


def stimulus_drive(audio: np.ndarray, audio_rate: int, onsets: np.ndarray) -> np.ndarray:
    """What drives the responses, at `SAMPLE_RATE`.

    Parameters
    ----------
    audio : [N] course of one sound.
    audio_rate : Hz.
    onsets : word onsets in seconds of the sound.

    Returns
    -------
    [T, N_BANDS + 1]: log energy in each mel band above the floor, and a 1 at each word onset.
    """
    hop = round(audio_rate / SAMPLE_RATE)
    n_samples = len(audio) // hop
    padded = np.pad(audio.astype(np.float32), (AUDIO_WINDOW // 2, AUDIO_WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(padded, AUDIO_WINDOW)[::hop][:n_samples]
    window = np.hanning(AUDIO_WINDOW).astype(np.float32)
    power = np.abs(scipy.fft.rfft(frames * window, axis=1)) ** 2 / (window**2).sum()
    bands = np.log10(power @ _mel_bands(audio_rate).T + FLOOR) - np.log10(FLOOR)
    words = np.zeros((n_samples, 1), np.float32)
    words[np.round(onsets * SAMPLE_RATE).astype(int).clip(0, n_samples - 1)] = 1.0
    return np.concatenate([bands.astype(np.float32), words], axis=1)


@dataclass(frozen=True)
class Listener:
    """A simulated person.

    Attributes
    ----------
    info : sensors.
    kernels : [S, L] response of each of S dipoles to its drive, at `SAMPLE_RATE`.
    mixing : [S, N_BANDS + 1] weights of the drives in each dipole.
    fields : [S, C] what each dipole makes at the sensors, T or V.
    noise_fields : [K, C] independent components of brain noise, T or V; each has the spectrum
        `brain_spectrum`.
    sensor_noise : s.d. of the white noise of a sensor, T or V.
    """

    info: "mne.Info"
    kernels: np.ndarray
    mixing: np.ndarray
    fields: np.ndarray
    noise_fields: np.ndarray
    sensor_noise: float

    @property
    def noise_level(self) -> float:
        """Root mean square of brain and sensor noise over all sensors, T or V."""
        return float(np.sqrt((self.noise_fields**2).sum(axis=0).mean() + self.sensor_noise**2))

    def respond(self, drive: np.ndarray) -> np.ndarray:
        """Clean response [T, C] float32 to the drive [T, N_BANDS + 1]."""
        n_samples, length = len(drive), self.kernels.shape[1]
        n_fft = scipy.fft.next_fast_len(n_samples + length, real=True)
        courses = scipy.fft.rfft(self.mixing.astype(np.float32) @ drive.T, n_fft, axis=1)
        courses *= scipy.fft.rfft(self.kernels.astype(np.float32), n_fft, axis=1)
        courses = scipy.fft.irfft(courses, n_fft, axis=1)[:, :n_samples]
        return courses.T @ self.fields.astype(np.float32)

    def noise(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Brain and sensor noise [T, C] float32: Gaussian and stationary."""
        brain_rng, sensor_rng = rng.spawn(2)
        shape = (n_samples, self.fields.shape[1])
        with ThreadPoolExecutor(1) as other:  # numpy draws without holding the interpreter's lock
            white = other.submit(sensor_rng.standard_normal, shape, np.float32)
            brain = self._brain_noise(n_samples, brain_rng)
            noise: np.ndarray = white.result()
        noise *= np.float32(self.sensor_noise)
        noise += brain
        return noise

    def _brain_noise(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """[T, C]: each component's spectrum is drawn, then turned into a course."""
        n_fft = scipy.fft.next_fast_len(n_samples, real=True)
        density = brain_spectrum(scipy.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE))
        amplitudes = np.sqrt(density * SAMPLE_RATE * n_fft / 4).astype(np.float32)
        parts = rng.standard_normal((len(self.noise_fields), 2 * len(amplitudes)), np.float32)
        spectrum = parts.view(np.complex64)
        spectrum *= amplitudes
        courses = scipy.fft.irfft(spectrum, n_fft, axis=1, overwrite_x=True)[:, :n_samples]
        return courses.T @ self.noise_fields.astype(np.float32)


def brain_spectrum(frequencies: np.ndarray) -> np.ndarray:
    """One-sided power density of brain noise per Hz, of total power 1: 1/f and an alpha peak."""
    grid = np.linspace(0, SAMPLE_RATE / 2, 4001)

    def shape(frequency: np.ndarray) -> np.ndarray:
        return 1 / np.sqrt(frequency**2 + NOISE_CORNER**2)

    def peak(frequency: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * ((frequency - ALPHA_RATE) / ALPHA_WIDTH) ** 2)

    falling = shape(frequencies) / np.trapezoid(shape(grid), grid)
    alpha = peak(frequencies) / np.trapezoid(peak(grid), grid)
    return (1 - ALPHA_SHARE) * falling + ALPHA_SHARE * alpha


def make_listener(
    modality: str,
    names: tuple[object, ...],
    snr: float,
    drive: np.ndarray,
    n_sensors: int | None = None,
) -> Listener:
    """Make the listener called `names`.

    Parameters
    ----------
    modality : "meg" or "eeg".
    names : what seeds this listener's anatomy.
    snr : root mean square of the clean response over that of the noise, over all sensors.
    drive : [T, N_BANDS + 1] stimulus in response to which `snr` holds.
    n_sensors : keep that many sensors, evenly spread; None: all.
    """
    info = sensor_info(modality, SAMPLE_RATE)
    if n_sensors is not None:
        last = len(info["ch_names"]) - 1
        info = mne.pick_info(info, np.linspace(0, last, n_sensors).round().astype(int))
    rng = generator(*names, "anatomy")
    kernels, mixing, places = _dipoles(rng)
    moments = tangential(places, rng.uniform(0, 2 * np.pi, len(places)))
    strengths = rng.lognormal(0.0, STRENGTH_JITTER, len(places))
    brain_places = _random_places(rng, N_NOISE_DIPOLES)
    brain_moments = rng.standard_normal((N_NOISE_DIPOLES, 3))
    fields = dipole_fields(info, np.concatenate([places, brain_places]))
    unit_fields = np.einsum("ndc,nd->nc", fields[: len(places)], moments) * strengths[:, None]
    noise_fields, sensor_noise = _noise(
        np.einsum("ndc,nd->nc", fields[len(places) :], brain_moments), BRAIN_NOISE[modality]
    )
    listener = Listener(info, kernels, mixing, unit_fields, noise_fields, sensor_noise)
    amplitude = np.sqrt(listener.respond(drive).astype(np.float64).var(axis=0).mean())
    gain = snr * listener.noise_level / amplitude
    return Listener(info, kernels, mixing, unit_fields * gain, noise_fields, sensor_noise)


def _dipoles(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernels [S, L], mixing [S, N_BANDS + 1] and places [S, 3] of the responding dipoles.

    In each hemisphere: one for every response and pair of bands, and one for words.
    """
    times = np.arange(int(0.45 * SAMPLE_RATE)) / SAMPLE_RATE
    kernels, mixing, places = [], [], []
    for side in (-1, 1):
        late = rng.normal(0, LATENCY_JITTER)
        for response, (latency, width, strength) in enumerate(PEAKS):
            for group in range(N_BANDS // 2):
                weights = np.zeros(N_BANDS + 1)
                weights[2 * group : 2 * group + 2] = (1.0, 0.5) if response % 2 else (0.5, 1.0)
                course = np.exp(-0.5 * ((times - latency - late) / width) ** 2)
                kernels.append(strength * course / np.linalg.norm(course))
                mixing.append(weights)
                shift = TONOTOPY * (group - (N_BANDS // 2 - 1) / 2)
                places.append(AREAS[response] * (side, 1, 1) + shift + rng.normal(0, JITTER, 3))
        course = PEAKS[2][2] * np.exp(-0.5 * ((times - PEAKS[2][0] - late) / PEAKS[2][1]) ** 2)
        kernels.append(course / np.linalg.norm(course))
        mixing.append(np.eye(N_BANDS + 1)[-1] * WORD_STRENGTH)
        places.append(AREAS["words"] * (side, 1, 1) + rng.normal(0, JITTER, 3))
    return np.array(kernels), np.array(mixing), np.array(places)


def _noise(fields: np.ndarray, root_mean_square: float) -> tuple[np.ndarray, float]:
    """Independent components [K, C] of the noise of many dipoles [N, C], and a sensor's own noise.

    Components far below the sensors' own noise are left out.
    """
    fields = fields * (root_mean_square / np.sqrt((fields**2).sum(axis=0).mean()))
    sensor_noise = SENSOR_NOISE * root_mean_square
    _, strengths, directions = np.linalg.svd(fields, full_matrices=False)
    kept = strengths > 0.03 * sensor_noise
    return strengths[kept, None] * directions[kept], sensor_noise


def _random_places(rng: np.random.Generator, count: int) -> np.ndarray:
    directions = rng.standard_normal((count, 3))
    directions[:, 2] = np.abs(directions[:, 2]) - 0.3  # few below the ears
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return ORIGIN + directions * rng.uniform(0.03, 0.075, (count, 1))


def _mel_bands(audio_rate: int) -> np.ndarray:
    """[N_BANDS, F] triangles of equal width in mel."""
    frequencies = scipy.fft.rfftfreq(AUDIO_WINDOW, 1 / audio_rate)
    mels = np.linspace(_mel(LOWEST_BAND), _mel(HIGHEST_BAND), N_BANDS + 2)[:, None]
    position = _mel(frequencies)[None]
    rising = (position - mels[:-2]) / (mels[1:-1] - mels[:-2])
    falling = (mels[2:] - position) / (mels[2:] - mels[1:-1])
    triangles = np.minimum(rising, falling).clip(0)
    return (triangles / triangles.sum(axis=1, keepdims=True)).astype(np.float32)


def _mel(frequency: float | np.ndarray) -> np.ndarray:
    return np.asarray(2595 * np.log10(1 + np.asarray(frequency, dtype=float) / 700))
