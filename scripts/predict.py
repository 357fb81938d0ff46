"""Decode a recording of one's own with a trained model.

Usage: python -m scripts.predict checkpoint=MODEL raw=FILE [OPTION=VALUE ...]

  checkpoint=MODEL   a checkpoint.th, the folder of an experiment, a folder written by
                     scripts.export, or one on the Hugging Face hub: hf://USER/NAME
  raw=FILE           any recording that MNE can read
  out=FOLDER         where to write (prediction)

What may have been heard, to be ranked (none of them: the embedding alone):
  audio=FILE         a sound: every stretch of it, one each step seconds, is a candidate
  candidates=TABLE   csv or tsv with a column sound (files), and if needed start (seconds)
  events=TABLE       csv or tsv with events (kind, start, duration, filepath, word, ...), for models
                     of words or phonemes
  onset=SECONDS      when in the recording it began, if it was heard: tells how often the model is
                     right (audio and events)

Who it is (neither: an unknown person, with the mean of the learned subjects):
  subject=NAME       a person that the model was trained on
  calibrate=FILE     a sound that the person heard, to fit the model to them first; with
  calibrate_onset=SECONDS   when in the recording it began, and
  minutes=3          how much of it to use

How:
  step=0.5           seconds from window to window
  causal=true        each moment from what came before it (and the latency) alone, with a scale of
  warm_up=60         the first so many seconds
  device=cpu         where to compute

Writes embedding.npz (values [F, n], times [n], names, latency) and, with candidates, ranking.csv:
the five most probable candidates of each window.

For example:
  python -m scripts.predict checkpoint=outputs/xps/557f5f8a raw=new.fif audio=story.wav onset=12.5
  python -m scripts.predict checkpoint=hf://me/my-model raw=new.vhdr candidates=sentences.csv

Exit code: 0 if all went well, 1 if the recording can't be decoded, 2 for a wrong argument.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bm import play
from bm.core.cache import write_atomically
from bm.core.messages import DataError
from bm.decoder import Decoder, Embedding, Ranking, Reading, Stimulus
from bm.decoder import stimulus as stimuli
from scripts.command import command
from scripts.options import UsageError, read_own

EMBEDDING, RANKING = "embedding.npz", "ranking.csv"
KS = (1, 5, 10)


@dataclass(frozen=True)
class Options:
    """What the command line asks for (see above)."""

    checkpoint: str = ""
    raw: Path | None = None
    out: Path = Path("prediction")
    audio: Path | None = None
    candidates: Path | None = None
    events: Path | None = None
    onset: float | None = None
    subject: str | None = None
    calibrate: Path | None = None
    calibrate_onset: float | None = None
    minutes: float = 3.0
    step: float = 0.5
    causal: bool = False
    warm_up: float = 60.0
    device: str | None = None

    def check(self) -> None:
        """Check what belongs together.

        Raises
        ------
        UsageError : something is missing, or too much.
        """
        if not self.checkpoint or self.raw is None:
            raise UsageError("Say which model and which recording: checkpoint=MODEL raw=FILE")
        given = [key for key in ("audio", "candidates", "events") if getattr(self, key)]
        if len(given) > 1:
            raise UsageError(
                f"Give one of audio, candidates and events, not {' and '.join(given)}."
            )
        if self.onset is not None and given not in (["audio"], ["events"]):
            raise UsageError("onset= is when audio= or events= began: give one of them.")
        if (self.calibrate is None) != (self.calibrate_onset is None):
            raise UsageError("calibrate=FILE and calibrate_onset=SECONDS need each other.")
        if self.subject is not None and self.calibrate is not None:
            raise UsageError("A subject that the model knows needs no calibration: leave one out.")
        if self.step <= 0:
            raise UsageError(f"step={self.step} should be a positive number of seconds.")


@command(__doc__)
def main(arguments: Sequence[str]) -> int:
    """Decode what the arguments name; returns the exit code."""
    options = read_own(Options, arguments)
    options.check()
    try:
        predict(options)
    except ImportError as error:  # a feature needs a package
        raise DataError(str(error)) from error
    return 0


def predict(options: Options) -> None:
    """Decode a recording, and write and print what is found."""
    decoder = play.load(options.checkpoint, options.device)
    assert options.raw is not None
    reading = decoder.read(options.raw, options.warm_up if options.causal else None)
    print(f"{reading.name}: {reading.matching}")
    calibrated = (0.0, 0.0)
    if options.calibrate is not None and options.calibrate_onset is not None:
        heard = stimuli.from_sound(options.calibrate, decoder.window.duration)
        losses = decoder.calibrate(reading, heard, options.calibrate_onset, options.minutes)
        n_seconds = min(60 * options.minutes, heard.end)
        calibrated = (options.calibrate_onset, options.calibrate_onset + n_seconds)
        print(f"calibrated on {n_seconds / 60:.3g} min: loss {losses[0]:.3f} to {losses[-1]:.3f}")
    embedding = decoder.embed(reading, options.step, options.causal, options.subject)
    options.out.mkdir(parents=True, exist_ok=True)
    write_embedding(options.out / EMBEDDING, embedding)
    print(
        f"embedding of {embedding.values.shape[0]} features, {embedding.times[0]:.2f} to "
        f"{embedding.times[-1]:.2f} s, latency {embedding.latency:.2f} s: {options.out / EMBEDDING}"
    )
    candidates = read_candidates(options, decoder)
    if candidates is not None:
        begins = window_begins(reading, candidates, options, calibrated, decoder.window.duration)
        ranking = decoder.rank(reading, candidates, begins, options.subject, options.onset)
        write_atomically(options.out / RANKING, partial(ranking.table().to_csv, index=False))
        print(
            f"{len(begins)} windows, {len(ranking.candidates)} candidates: {options.out / RANKING}"
        )
        print_accuracy(ranking)


def read_candidates(options: Options, decoder: Decoder) -> Stimulus | None:
    """What may have been heard; None if nothing is named."""
    duration = decoder.window.duration
    if options.audio is not None:
        return stimuli.from_sound(options.audio, duration, options.step)
    if options.candidates is not None:
        return stimuli.from_table(options.candidates, duration)
    if options.events is not None:
        events = stimuli.read_table(options.events)
        shortest = decoder.config.dset.min_block_duration
        return stimuli.from_events(events, duration, options.step, shortest)
    return None


def window_begins(
    reading: Reading,
    stimulus: Stimulus,
    options: Options,
    calibrated: tuple[float, float],
    duration: float,
) -> list[float]:
    """Seconds at which windows begin: where candidates do, if it is known when they were heard.

    What the model was calibrated on, and what came before a scale was known, is left out; with
    causal=true, all before the end of the calibration, too.

    Raises
    ------
    ValueError : nothing is left.
    """
    start = reading.warm_up or 0.0
    if options.onset is None:
        begins = np.arange(start, reading.last_begin + 1e-6, options.step)
    else:
        begins = options.onset + stimulus.candidates["begin"].to_numpy(float)
        begins = begins[(begins >= start) & (begins <= reading.last_begin)]
    first, last = calibrated
    is_before = (begins + duration <= first) & (not options.causal)
    left = begins[is_before | (begins >= last)]
    if not len(left):
        raise ValueError(
            f"{reading.name}: no window is left to decode. Of {len(begins)} from {start:.1f} to "
            f"{reading.last_begin:.1f} s, none lies outside of what the model was calibrated on "
            f"({first:.1f} to {last:.1f} s): check onset, or choose fewer minutes."
        )
    return [float(begin) for begin in left]


def write_embedding(path: Path, embedding: Embedding) -> None:
    """Write values, times, names and latency."""

    def write(part: Path) -> None:
        with open(part, "wb") as file:
            np.savez(
                file,
                values=embedding.values.astype(np.float32),
                times=embedding.times,
                names=np.array(embedding.names),
                latency=embedding.latency,
            )

    write_atomically(path, write)


def print_accuracy(ranking: Ranking) -> None:
    """Print how often the model is right, where that is known."""
    if not ranking.n_judged:
        return
    for k in KS:
        if k < len(ranking.candidates):
            print(
                f"top-{k} {100 * ranking.accuracy(k):.1f} % (chance {100 * ranking.chance(k):.1f} "
                f"%, {len(ranking.candidates)} candidates, {ranking.n_judged} windows)"
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
