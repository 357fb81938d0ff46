"""CTF recordings, a real one and written ones: what MNE reads, and what it would not notice."""

import mne
import numpy as np
import pytest
from fixtures.ctf import Channels, helmet, write_ds

from bm.core.messages import DataError
from bm.studies.formats.ctf import read_channel, read_ds, read_header
from bm.studies.mous.triggers import received

REAL = "testdata_ctf_short_discontinuous"


def test_real_header_and_trigger_line_are_read_as_mne_reads_them(shared_data):
    folder = shared_data / "ctf" / f"{REAL}.ds"
    raw = mne.io.read_raw_ctf(folder, verbose="error")
    header = read_header(folder)
    assert header.names == raw.ch_names
    assert (header.sample_rate, header.n_trials * header.trial_samples) == (1200.0, 2402)
    triggers, clock = (
        raw.get_data([next(full for full in raw.ch_names if full.startswith(name))])[0]
        for name in ("UPPT001", "SCLK01")
    )
    np.testing.assert_array_equal(read_channel(folder, "UPPT001"), triggers)
    np.testing.assert_allclose(read_channel(folder, "SCLK01") / 12_000, clock, rtol=1e-12)


def test_whole_helmet_has_273_sensors_with_places(tmp_path):
    write_ds(tmp_path / "whole.ds", [(0.5, 10), (1.0, 20)], 2.0)
    raw = read_ds(tmp_path / "whole.ds")
    assert len(mne.pick_types(raw.info, meg=True, ref_meg=False)) == 273
    assert len(mne.pick_types(raw.info, meg=True)) == 301
    published = mne.pick_types(raw.info, meg=True)[28:301]
    np.testing.assert_array_equal(published, mne.pick_types(raw.info, meg=True, ref_meg=False))
    found = mne.find_events(raw, shortest_event=1, verbose="error")
    assert found[:, [0, 2]].tolist() == [[600, 10], [1200, 20]]


def test_recording_goes_over_several_files_and_ends_where_its_clock_stops(tmp_path):
    folder = tmp_path / "long.ds"
    options = {"trial": 1.0, "trials_per_file": 2, "recorded": 4.5}
    write_ds(folder, [(0.5, 10), (3.0, 20)], 5.0, helmet(4, 3), **options)
    assert sorted(file.name for file in folder.glob("*meg4")) == [
        "long.1_meg4", "long.2_meg4", "long.meg4",
    ]  # fmt: skip
    raw = read_ds(folder)
    assert raw.n_times == 5400
    line = read_channel(folder, "UPPT001")
    np.testing.assert_array_equal(line[:5400], raw.get_data(["UPPT001"])[0])
    assert received(line, 1200.0).times.tolist() == [0.5, 3.0]


def test_missing_continuation_is_named(tmp_path):
    folder = tmp_path / "long.ds"
    write_ds(folder, [(0.5, 10)], 3.0, helmet(4, 3), trial=1.0, trials_per_file=1)
    (folder / "long.1_meg4").rename(folder / "kept")
    with pytest.raises(DataError, match=r"long\.1_meg4 is missing, though long\.2_meg4 is there"):
        read_ds(folder)
    (folder / "kept").rename(folder / "long.1_meg4")
    (folder / "long.2_meg4").unlink()
    with pytest.raises(DataError, match=r"2 of the 3 trials .* long\.2_meg4 is missing"):
        read_ds(folder)


def test_folder_renamed_alone_is_told_from_a_missing_file(tmp_path):
    write_ds(tmp_path / "old.ds", [(0.5, 10)], 1.0, helmet(4, 3))
    (tmp_path / "old.ds").rename(tmp_path / "new.ds")
    with pytest.raises(DataError, match=r"new\.res4 is missing, but there is old\.res4"):
        read_ds(tmp_path / "new.ds")


def test_recording_of_another_kind_is_refused(tmp_path):
    write_ds(tmp_path / "bare.ds", [(0.5, 10)], 1.0, helmet(4, 3), compensated=False)
    with pytest.raises(DataError, match=r"bare\.res4 has no compensation records"):
        read_ds(tmp_path / "bare.ds")
    channels = helmet(4, 3, stimuli=["UDIO001"])
    write_ds(tmp_path / "other.ds", [], 1.0, channels)
    with pytest.raises(DataError, match=r"other\.ds: no channel 'UPPT001'.*Allowed: .*UDIO001"):
        read_channel(tmp_path / "other.ds", "UPPT001")
    kept = [index for index, kind in enumerate(channels.kinds) if kind != 5]
    blind = Channels([channels.names[i] for i in kept], [channels.kinds[i] for i in kept])
    write_ds(tmp_path / "blind.ds", [], 1.0, blind)
    with pytest.raises(DataError, match=r"blind\.res4 has no compensation records"):
        read_ds(tmp_path / "blind.ds")


def test_pulses_that_overlap_and_lines_that_stay_are_both_understood():
    line = np.zeros(100, int)
    line[10:40] |= 14
    line[30:60] |= 1  # 15 from 30 to 40
    triggers = received(line, 1.0)
    assert {(10, 14), (30, 1)} <= set(zip(triggers.times, triggers.codes, strict=True))
    line[:] = 0
    line[10:30], line[30:60], line[60:] = 1, 5, 20
    triggers = received(line, 1.0)
    assert {(10, 1), (30, 5), (60, 20)} <= set(zip(triggers.times, triggers.codes, strict=True))
