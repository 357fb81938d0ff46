"""Any BIDS dataset of people who listened to speech in the MEG or under EEG.

Enters: the root of a dataset that mne-bids can read, with sounds under `stimuli/` and tables
`*_events.tsv` that say what began when. Leaves: `Recording`s. docs/your-own-data.md has a whole
example.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mne
import numpy as np
import pandas as pd

from bm.core.cache import Cache
from bm.core.hashing import digest, file_fingerprint
from bm.core.messages import DataError, check_choice, did_you_mean
from bm.events.blocks import BLOCK_RULES
from bm.recordings import Recording
from bm.recordings.sensors import listed
from bm.studies.base import Study, register
from bm.studies.bids_events import EventReader
from bm.studies.formats.files import read_json_object
from bm.studies.formats.kit import check_con

if TYPE_CHECKING:
    import mne_bids

logger = logging.getLogger(__name__)

DATATYPES = ("meg", "eeg")
EXTENSIONS = [".fif", ".ds", ".con", ".sqd", ".vhdr", ".edf", ".bdf", ".set"]
NOT_LISTENING = {
    "subject": ("emptyroom",),
    "task": ("noise",),
    "acquisition": ("calibration", "crosstalk"),  # files of the maker, beside Elekta's recordings
}
DURATION = "RecordingDuration"
BAD_CHANNELS = ("mask", "keep")
PARTS_OF = {".vhdr": (".eeg", ".vmrk"), ".set": (".fdt",)}
SIDECARS = (("channels", ".tsv"), ("electrodes", ".tsv"), ("coordsystem", ".json"))


@register
class Bids(Study):
    """A dataset in the Brain Imaging Data Structure.

    Parameters
    ----------
    path, root : root of the dataset (two names for one option).
    subjects, sessions, task : labels to use, one or several; all if not given.
    datatype : "meg" or "eeg"; both if not given.
    columns : what the columns of `*_events.tsv` are called, where they differ from
        `bm.studies.bids_events.COLUMNS`: ``{"word": "token", "sentence": "utterance"}``.
    stimuli : folder of the sound files, relative to the root.
    block_rule : what a block begins with: "sentence", "sound" or "sentence_or_sound".
    merge_blocks : whether blocks of less than dset.min_block_duration are merged.
    language : of the words, two letters.
    bad_channels : what becomes of channels that channels.tsv calls bad: "mask" (set to 0 and left
        out of the spatial attention, as flat ones are) or "keep".
    montage : MNE montage ("colin27_1020") for EEG recordings without electrode positions.
    dataset : tells this dataset from others trained on at the same time; the name of its folder.
    """

    name = "bids"

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        root: str | Path | None = None,
        subjects: str | Sequence[str | int] | None = None,
        sessions: str | Sequence[str | int] | None = None,
        task: str | Sequence[str | int] | None = None,
        datatype: str | None = None,
        columns: Mapping[str, str | None] | None = None,
        stimuli: str = "stimuli",
        block_rule: str = "sentence",
        merge_blocks: bool = True,
        language: str = "en",
        bad_channels: str = "mask",
        montage: str | None = None,
        dataset: str | None = None,
        cache: Cache,
    ):
        super().__init__(_one_root(path, root), cache=cache)
        if self.path is None or not self.path.is_dir():
            raise DataError(f"There is no BIDS dataset {self.path}: check root (or path).")
        self.root = self.path
        if datatype is not None:
            check_choice("datatype", datatype, DATATYPES)
        check_choice("block_rule", block_rule, BLOCK_RULES)
        check_choice("bad_channels", bad_channels, BAD_CHANNELS)
        if montage is not None:
            check_choice("montage", montage, mne.channels.get_builtin_montages())
        wanted = {"subject": subjects, "session": sessions, "task": task}
        self.filters = {
            entity: [str(label) for label in ([labels] if _is_one(labels) else labels)]
            for entity, labels in wanted.items()
            if labels is not None
        }
        self.datatypes = DATATYPES if datatype is None else (datatype,)
        self.block_rule, self.merge_blocks = block_rule, merge_blocks
        self.bad_channels, self.montage = bad_channels, montage
        self.dataset = dataset or self.root.name
        self.reader = EventReader(self.root, self.root / stimuli, columns or {}, language)
        self._stimuli_digest = ""

    def recordings(self) -> Iterator[Recording]:
        """All recordings that have a signal and events, in the order of their names."""
        signals = self._find(self.datatypes, EXTENSIONS)
        tables = self._find(["events"], [".tsv"])
        self._check_filters(signals + tables)
        signals, tables = self._chosen(signals), self._chosen(tables)
        with_signal = {_name(path) for path in signals}
        skipped = [_why_absent(path) for path in tables if _name(path) not in with_signal]
        found = []
        for path in signals:
            table = path.find_matching_sidecar("events", ".tsv", on_error="ignore")
            if table is None:
                skipped.append(f"{path.basename} has no *_events.tsv")
            else:
                found.append(BidsRecording(self, path, Path(table)))
        if skipped:
            shown = "; ".join(skipped[:3]) + ("; ..." if len(skipped) > 3 else "")
            logger.warning("%s: %d recording(s) skipped: %s.", self.root, len(skipped), shown)
        if not found:
            raise DataError(
                f"{self.root}: no {' or '.join(self.datatypes)} recording that has an *_events.tsv "
                f"({len(signals)} recording(s), {len(tables)} event table(s) match the selection)."
            )
        logger.info("%s: %d recording(s).", self.root, len(found))
        yield from found

    def stimuli_digest(self) -> str:
        """Changes when a sound file is replaced; events hold their durations."""
        if not self._stimuli_digest:
            files = [file for file in sorted(self.reader.stimuli.rglob("*")) if file.is_file()]
            self._stimuli_digest = digest(file_fingerprint(files))
        return self._stimuli_digest

    def _find(
        self, suffixes: Sequence[str], extensions: Sequence[str]
    ) -> list["mne_bids.BIDSPath"]:
        """Paths of this kind, whatever the filters."""
        import mne_bids  # takes long, and other studies do without

        paths = mne_bids.find_matching_paths(
            self.root,
            suffixes=list(suffixes),
            extensions=list(extensions),
            datatypes=list(self.datatypes),
            ignore_nosub=True,
        )
        return [
            path
            for path in paths
            if path.split in (None, "01", "1")  # MNE reads the other parts with the first
            and not any(getattr(path, entity) in names for entity, names in NOT_LISTENING.items())
        ]

    def _chosen(self, paths: Sequence["mne_bids.BIDSPath"]) -> list["mne_bids.BIDSPath"]:
        return [
            path
            for path in paths
            if all(
                any(_same_label(label, getattr(path, entity)) for label in labels)
                for entity, labels in self.filters.items()
            )
        ]

    def _check_filters(self, paths: Sequence["mne_bids.BIDSPath"]) -> None:
        """Raise for a label that no path has: probably a slip."""
        for entity, labels in self.filters.items():
            there = sorted({getattr(path, entity) or "" for path in paths})
            for label in labels:
                if there and not any(_same_label(label, known) for known in there):
                    raise ValueError(
                        f"{self.root}: there is no {entity} {label!r}. {did_you_mean(label, there)}"
                    )


class BidsRecording(Recording):
    """One recording of a BIDS dataset."""

    def __init__(self, study: Bids, path: "mne_bids.BIDSPath", events_file: Path):
        super().__init__(
            f"bids-{study.dataset}",
            path.subject,
            path.copy().update(split=None, extension=None).basename,
            study.cache,
            session=path.session or "",
            block_rule=study.block_rule,
            merge_blocks=study.merge_blocks,
        )
        self._study = study
        self._path = path
        self._events_file = events_file

    @property
    def options(self) -> dict[str, Any]:
        """Options that change the signal."""
        return {"bad_channels": self._study.bad_channels, "montage": self._study.montage}

    def event_key(self) -> dict[str, Any]:
        """What the events depend on beside the signal."""
        reader = self._study.reader
        return {
            "events": file_fingerprint([self._events_file]),
            "stimuli": [str(reader.stimuli), self._study.stimuli_digest()],
            "columns": dict(reader.columns),
            "language": reader.language,
        }

    def source_files(self) -> list[Path]:
        """Signal and the tables that describe its channels."""
        signal = self._path.fpath
        files = sorted(signal.rglob("*")) if signal.is_dir() else [signal]
        files += [signal.with_suffix(suffix) for suffix in PARTS_OF.get(signal.suffix, [])]
        if self._path.split:
            files = sorted(signal.parent.glob(signal.name.replace("split-01", "split-*")))
        for suffix, extension in SIDECARS:
            sidecar = self._path.find_matching_sidecar(suffix, extension, on_error="ignore")
            files += [Path(sidecar)] if sidecar is not None else []
        return [file for file in files if file.is_file()]

    def load_raw(self) -> "mne.io.BaseRaw":
        """Signal as mne-bids reads it: types, bad channels and positions from the sidecar files."""
        try:
            raw = _read(self._path)
        except Exception:
            self.load_events()  # mne-bids reads them, too: a fault there has a message of its own
            raise
        self._check_duration(raw)
        self._drop_others(raw)
        if self._study.bad_channels == "keep":
            raw.info["bads"] = []
        if self._study.montage is not None:
            _place_electrodes(raw, self._study.montage)
        return raw

    def load_events(self) -> pd.DataFrame:
        """Events of the recording's `*_events.tsv`."""
        return self._study.reader.read(self._events_file)

    def _drop_others(self, raw: "mne.io.BaseRaw") -> None:
        """Leave out electrodes in a recording of datatype meg, and the other way round."""
        is_meg = self._path.datatype == "meg"
        others = mne.pick_types(raw.info, meg=not is_meg, eeg=is_meg, ref_meg=False, exclude=[])
        if len(others):
            names = [raw.ch_names[index] for index in others]
            logger.info(
                "%s: %d sensors of another kind left out: %s", self, len(names), listed(names)
            )
            raw.drop_channels(names)

    def _check_duration(self, raw: "mne.io.BaseRaw") -> None:
        """Compare with what the sidecar file says: most formats don't notice that they are cut."""
        sidecar = self._path.find_matching_sidecar(self._path.datatype, ".json", on_error="ignore")
        if sidecar is None:
            return
        announced = read_announced_duration(Path(sidecar))
        duration = raw.n_times / raw.info["sfreq"]
        if announced is not None and announced - duration > max(1, 0.01 * announced):
            raise DataError(
                f"{self._path.fpath} is truncated: it lasts {duration:.1f} s, but {sidecar} says "
                f"{announced:.1f} s. Download or copy it again, or correct {DURATION} there."
            )


def read_announced_duration(sidecar: Path) -> float | None:
    """Seconds that a recording lasts by its sidecar file; None if that doesn't say.

    Raises
    ------
    DataError : the file is no JSON object, or not UTF-8.
    """
    announced = read_json_object(sidecar).get(DURATION)
    if isinstance(announced, bool) or not isinstance(announced, int | float):
        return None
    return float(announced) if 0 <= announced < math.inf else None


def _one_root(path: str | Path | None, root: str | Path | None) -> str:
    """Where the dataset is: two names for one option."""
    given = {str(place) for place in (path, root) if place is not None}
    if not given:
        raise ValueError(
            "Study 'bids' needs the root of a dataset, such as selections.bids.root=/data/my_study."
        )
    if len(given) > 1:
        raise ValueError(f"path={str(path)!r} and root={str(root)!r} differ: give one of them.")
    return given.pop()


def _is_one(labels: object) -> bool:
    return isinstance(labels, str | int)


def _same_label(wanted: str, label: str | None) -> bool:
    """Compare labels of BIDS; "sub-01" is "01", and so is 1, which YAML makes of 01."""
    wanted, label = wanted.rpartition("-")[2], label or ""
    return wanted == label or (
        wanted.isdecimal() and label.isdecimal() and int(wanted) == int(label)
    )


def _name(path: "mne_bids.BIDSPath") -> str:
    """Name that the files of one recording share."""
    bare = path.copy().update(suffix=None, extension=None, split=None).basename
    return f"{path.datatype}/{bare}"


def _why_absent(events: "mne_bids.BIDSPath") -> str:
    """Say why there is no signal to an event table."""
    stem = events.fpath.name.removesuffix("_events.tsv")
    files = events.fpath.parent.glob(f"{stem}_{events.datatype}.*")
    if any(file.is_symlink() and not file.exists() for file in files):
        return f"{_name(events)} was not downloaded (git annex: datalad get)"
    return f"{_name(events)} has events, but no signal"


def _read(path: "mne_bids.BIDSPath") -> "mne.io.BaseRaw":
    import mne_bids  # see `Bids._find`

    if path.extension not in (".con", ".sqd"):
        return mne_bids.read_raw_bids(path, verbose="error")
    check_con(path.fpath)
    try:  # channels.tsv has the names that MNE gives to KIT channels, or those of the file
        return mne_bids.read_raw_bids(path, {"standardize_names": True}, verbose="error")
    except RuntimeError:
        return mne_bids.read_raw_bids(path, {"standardize_names": False}, verbose="error")


def _place_electrodes(raw: "mne.io.BaseRaw", montage: str) -> None:
    """Give electrodes their usual places, if the dataset gives none."""
    eeg = mne.pick_types(raw.info, meg=False, eeg=True, exclude=[])
    places = [raw.info["chs"][index]["loc"][:3] for index in eeg]
    if any(np.isfinite(place).all() and place.any() for place in places):
        return
    raw.set_montage(
        montage, match_case=False, match_alias=True, on_missing="ignore", verbose="error"
    )
