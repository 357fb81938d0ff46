"""Studies of which a part comes packed, with a token or a login, or from hands."""

import logging
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from servers import FileServer, add_dryad, below, webdav

from bm.studies.download import Connection, DownloadError, Summary, download
from bm.studies.downloads.manifest import checksum
from bm.studies.downloads.studies import BRENNAN


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


# Archives, tokens, and hands


NATURAL = zipped({"Natural Speech/EEG/Subject1/Subject1_Run1.mat": b"eeg", "__MACOSX/._x": b""})
PRIVATE = zipped({"audio1.wav": b"RIFF", "align1.json": b"{}", "oldman_run1.txt": b"He was"})
EEG = "Natural Speech/EEG/Subject1/Subject1_Run1.mat"


@pytest.fixture
def broderick(server: FileServer, tmp_path: Path) -> Any:
    files = {"N400.zip": b"other", "Natural Speech.zip": NATURAL}
    add_dryad(server, "10.5061/dryad.070jc", files, token="abc")
    server.add("/papers/private.zip", PRIVATE)

    def get(**options: Any) -> Summary:
        servers = {"dryad": server.url, "stimuli": f"{server.url}/papers"}
        connection = Connection(servers, patience=0.0)
        return download("broderick2019", tmp_path / "b", connection=connection, **options)

    return get


def test_archives_are_unpacked_where_the_study_looks(broderick, monkeypatch, server, tmp_path):
    monkeypatch.setenv("DRYAD_TOKEN", "abc")
    summary = broderick()
    root = tmp_path / "b" / "download"
    private = {"private/audio1.wav", "private/align1.json", "private/oldman_run1.txt"}
    assert below(root) == {"Natural Speech.zip", EEG, "private.zip"} | private
    assert summary.n_files == 2
    assert server.sent["/store/0"] == 0  # N400.zip isn't needed
    n_requests = len(server.requests)
    broderick()
    broderick(verify=True)
    assert len(server.requests) == n_requests


def test_archives_may_be_deleted_and_lost_files_come_out_of_them_again(
    broderick, monkeypatch, server, tmp_path
):
    monkeypatch.setenv("DRYAD_TOKEN", "abc")
    broderick()
    root = tmp_path / "b" / "download"
    (root / EEG).unlink()
    n_requests = len(server.requests)
    broderick()
    assert (root / EEG).read_bytes() == b"eeg"
    (root / EEG).write_bytes(b"EEG")
    broderick(verify=True)
    assert (root / EEG).read_bytes() == b"eeg"
    for name in ("Natural Speech.zip", "private.zip"):
        (root / name).unlink()
    broderick()
    assert len(server.requests) == n_requests
    (root / EEG).unlink()
    assert broderick().n_fetched == 1
    assert (root / EEG).read_bytes() == b"eeg"


def test_without_a_token_the_rest_comes_and_the_steps_are_told(broderick, tmp_path):
    with pytest.raises(DownloadError, match="DRYAD_TOKEN isn't set") as caught:
        broderick()
    assert "https://doi.org/10.5061/dryad.070jc in a browser" in str(caught.value)
    assert "ds004408" not in str(caught.value)  # that source was no problem
    assert (tmp_path / "b" / "download" / "private" / "audio1.wav").exists()


@pytest.mark.parametrize("outer", [True, False])
def test_an_archive_put_there_by_hand_is_taken(broderick, server, tmp_path, outer):
    root = tmp_path / "b" / "download"
    root.mkdir(parents=True)
    if outer:
        whole = zipped({"Natural Speech.zip": NATURAL, "N400.zip": b"x" * 99})
        (root / "doi_10_5061_dryad_070jc__v3.zip").write_bytes(whole)
    else:
        (root / "Natural Speech.zip").write_bytes(NATURAL)
    broderick()
    assert (root / EEG).read_bytes() == b"eeg"
    assert not (root / "N400.zip").exists()
    n_requests = len(server.requests)
    broderick()
    assert len(server.requests) == n_requests


def test_stimuli_put_there_by_hand_are_taken_and_nobody_is_asked(broderick, server, tmp_path):
    root = tmp_path / "b" / "download"
    for path in (EEG, "private/audio1.wav", "private/align1.json", "private/oldman_run1.txt"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"mine")
    assert broderick().n_files == 4
    assert server.requests == []


def test_a_damaged_archive_is_named_and_replaced_when_it_is_deleted(
    broderick, monkeypatch, tmp_path
):
    monkeypatch.setenv("DRYAD_TOKEN", "abc")
    root = tmp_path / "b" / "download"
    root.mkdir(parents=True)
    (root / "Natural Speech.zip").write_bytes(NATURAL[:100])
    broderick()  # cut off: shorter than the list says, so it is completed
    assert (root / EEG).read_bytes() == b"eeg"


def brennan(tmp_path: Path, **options: Any) -> Summary:
    return download("brennan2019", tmp_path / "alice", **options)


def test_what_no_program_can_get_is_taken_from_hands(shared_data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    root = tmp_path / "alice" / "download"
    with pytest.raises(DownloadError, match="globus transfer --recursive cc387c09") as caught:
        brennan(tmp_path)
    assert "In " + str(root) + " there is no AliceChapterOne-EEG.csv and no S[0-9]" in str(
        caught.value
    )
    root.mkdir(exist_ok=True)
    story = (shared_data / "brennan2019" / "AliceChapterOne-EEG.csv").read_bytes()
    (root / "AliceChapterOne-EEG.csv").write_bytes(story)
    (root / "S01.mat").write_bytes(b"eeg")
    (root / "audio.zip").write_bytes(zipped({"audio/Sound1.wav": b"RIFF"}))
    (root / "proc.zip").write_bytes(zipped({"S01.mat": b"proc", "__MACOSX/._S01.mat": b""}))
    assert brennan(tmp_path).n_files == 4
    assert (root / "proc" / "S01.mat").read_bytes() == b"proc"
    assert brennan(tmp_path, verify=True).n_files == 4


def test_a_story_that_a_spreadsheet_has_saved_is_refused(tmp_path):
    root = tmp_path / "alice" / "download"
    for path in ("S01.mat", "audio/Sound1.wav", "proc/S01.mat"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    (root / "AliceChapterOne-EEG.csv").write_text("Word;Segment\n")
    with pytest.raises(DownloadError, match=r"AliceChapterOne-EEG\.csv is of no known release"):
        brennan(tmp_path)


def test_the_real_story_is_of_a_known_release(shared_data):
    file = shared_data / "brennan2019" / "AliceChapterOne-EEG.csv"
    source: Any = BRENNAN.sources[0]
    assert checksum(file, "md5") in source.releases["AliceChapterOne-EEG.csv"]


# Donders


@pytest.fixture
def mous(tmp_path: Path, server: FileServer) -> Iterator[Any]:
    folder = tmp_path / "collection"
    tree = ["README", "stimuli/stimuli.txt", "stimuli/audio_files/EQ_Ramp_Int2_Int1LPF001.wav"]
    for subject, task, kind in (("A2002", "auditory", "Aud"), ("V1001", "visual", "Vis")):
        stem = f"sub-{subject}/meg/sub-{subject}_task-{task}_meg"
        tree += [f"{stem}.ds/x.meg4", f"{stem}.ds/x.res4", f"{stem}.json"]
        tree += [f"sub-{subject}/meg/sub-{subject}_task-rest_meg.ds/x.meg4"]
        tree += [f"sub-{subject}/func/bold.nii.gz"]
        tree += [f"sourcedata/meg_task/{subject}-2-MEG-MOUS-{kind}.log"]
    for path in tree:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    content = zipped({"phonemes/EQ_Ramp_Int2_Int1LPF001.TextGrid": b"xmin"})
    server.add("/papers/derivatives.zip", content)
    with webdav(folder, "dccn/mous", "me", "secret") as url:

        def get(**options: Any) -> Summary:
            servers = {"donders": url, "alignment": f"{server.url}/papers"}
            connection = Connection(servers, patience=0.0)
            return download("schoffelen2019", tmp_path / "m", connection=connection, **options)

        yield get


def test_people_of_one_modality_come_with_what_it_needs(mous, server, monkeypatch, tmp_path):
    monkeypatch.setenv("DONDERS_USER", "me")
    monkeypatch.setenv("DONDERS_PASSWORD", "secret")
    root = tmp_path / "m" / "download"
    assert mous(modality="visual").n_files == 7
    assert not any("A2002" in path or "rest" in path or "bold" in path for path in below(root))
    assert server.requests == []  # reading needs no alignment
    mous(modality="audio")
    assert (root / "derivatives/phonemes/EQ_Ramp_Int2_Int1LPF001.TextGrid").read_bytes() == b"xmin"
    assert (root / "sub-A2002/meg/sub-A2002_task-auditory_meg.ds/x.meg4").exists()
    assert mous().n_files == 12
    with pytest.raises(ValueError, match="Did you mean 'audio'"):
        mous(modality="auditory")


def test_what_came_without_a_checksum_can_be_verified_all_the_same(mous, monkeypatch, tmp_path):
    monkeypatch.setenv("DONDERS_USER", "me")
    monkeypatch.setenv("DONDERS_PASSWORD", "secret")
    mous(subjects="V1001", modality="visual")
    file = tmp_path / "m" / "download" / "stimuli" / "stimuli.txt"
    file.write_text("STIMULI/stimuli.txt")
    assert mous(subjects="V1001", modality="visual", verify=True).n_fetched == 1
    assert file.read_text() == "stimuli/stimuli.txt"


def test_without_a_login_the_steps_say_how_to_get_one(mous):
    with pytest.raises(DownloadError, match="no login: set DONDERS_USER") as caught:
        mous(modality="visual")
    assert "accept the data use agreement" in str(caught.value)
