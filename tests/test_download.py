"""Downloads of whole studies: what is asked for comes once, stays, and is put right."""

import logging
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from servers import HTML, FileServer, Served, add_dryad, add_osf, webdav

from bm.core.messages import DataError
from bm.studies.download import Connection, DownloadError, Summary, download, download_selection
from bm.studies.downloads.manifest import FOLDER, checksum
from bm.studies.downloads.studies import BRENNAN
from scripts import download as script

SUBJECTS = ("01", "02", "03")
NODES = {"ag3kj": ["01"], "h2tzn": ["02"], "u5327": ["03"]}


def con(subject: str) -> str:
    return f"sub-{subject}/ses-0/meg/sub-{subject}_ses-0_task-0_meg.con"


@pytest.fixture(autouse=True)
def no_logins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the tests may have logins."""
    for name in ("DRYAD_TOKEN", "OSF_TOKEN", "DONDERS_USER", "DONDERS_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def server() -> Iterator[FileServer]:
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def masc(server: FileServer) -> dict[str, Served]:
    """MEG-MASC in miniature, in its three projects."""
    served: dict[str, Served] = {}
    for node, subjects in NODES.items():
        tree = {"participants.tsv": b"participant_id\n", f"stimuli/audio/{node}.wav": b"RIFF"}
        for subject in subjects:
            tree[con(subject)] = subject.encode() * 50_000
            tree[f"sub-{subject}/ses-0/anat/sub-{subject}_FLASH.nii.gz"] = b"brain"
        served |= add_osf(server, node, tree)
    return served


@pytest.fixture
def get(server: FileServer, tmp_path: Path) -> Any:
    """Download MEG-MASC into ``tmp_path / "masc"``."""

    def get(**options: Any) -> Summary:
        connection = Connection({"osf": f"{server.url}/v2/"}, patience=0.0)
        return download("gwilliams2022", tmp_path / "masc", connection=connection, **options)

    return get


def below(folder: Path) -> set[str]:
    """Files of the data."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in files if path.parts[0] != FOLDER}


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


# What comes


def test_three_projects_make_one_tree_of_what_is_needed(masc, get, tmp_path):
    summary = get()
    root = tmp_path / "masc" / "download"
    assert below(root) == {
        "participants.tsv",
        *(f"stimuli/audio/{node}.wav" for node in NODES),
        *map(con, SUBJECTS),
    }
    assert (root / con("02")).read_bytes() == b"02" * 50_000
    n_bytes = sum(file.stat().st_size for file in map(root.joinpath, below(root)))
    assert summary == Summary(root, 7, 7, n_bytes)
    assert str(summary) == f"7 files are in {root} (7 came now, 0.3 MB)"


def test_nobody_is_asked_if_all_is_there(masc, server, get):
    get()
    n_requests = len(server.requests)
    assert get().n_fetched == 0
    assert get(subjects="02").n_files == 5
    assert get(verify=True).n_fetched == 0
    assert len(server.requests) == n_requests
    server.close()
    assert get().n_files == 7


def test_subjects_come_as_they_are_asked_for(masc, server, get, tmp_path):
    assert get(subjects=[2]).n_files == 5  # YAML reads 02 as a number
    root = tmp_path / "masc" / "download"
    assert {path for path in below(root) if "sub-" in path} == {con("02")}
    assert get(subjects=["02", "sub-03"]).n_fetched == 1
    assert get().n_fetched == 1
    sent = [path for path in server.sent if path.startswith("/download/")]
    assert all(server.sent[path] == len(server.files[path].content) for path in sent)


def test_a_subject_that_isnt_there_is_named(masc, get, tmp_path):
    with pytest.raises(DownloadError, match=r"osf: .* has no file of subject 99\."):
        get(subjects=["01", "99"])
    assert (tmp_path / "masc" / "download" / con("01")).exists()
    get()
    with pytest.raises(DownloadError, match="subject 99"):
        get(subjects=["99"])


def test_files_that_are_in_the_folder_of_the_study_itself_are_found_there(
    masc, server, get, tmp_path
):
    for path in (con("01"), "stimuli/audio/ag3kj.wav"):
        (tmp_path / "masc" / path).parent.mkdir(parents=True)
        (tmp_path / "masc" / path).write_bytes(masc[path].content)
    summary = get()
    assert summary.root == tmp_path / "masc"
    assert summary.n_fetched == 5
    assert server.sent["/download/ag3kj/"] == 0


def test_a_selection_is_downloaded_with_its_options(masc, server, tmp_path):
    connection = Connection({"osf": f"{server.url}/v2"}, patience=0.0)
    selection = {"study": "gwilliams2022", "path": str(tmp_path), "subjects": ["03"]}
    summary = download_selection(selection, connection)
    assert summary is not None
    assert summary.n_files == 5
    assert download_selection({"study": "synthetic"}) is None
    assert download_selection({"study": "bids", "root": "/data"}) is None


def test_data_that_somebody_put_there_are_taken_as_they_are(masc, server, tmp_path, caplog):
    for path in (con("01"), "stimuli/audio/ag3kj.wav"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(masc[path].content)
    with caplog.at_level("INFO"):
        selection = {"study": "gwilliams2022", "path": str(tmp_path)}
        assert download_selection(selection, Connection({"osf": f"{server.url}/v2"})) is None
    assert f"the files in {tmp_path} are taken as they are" in caplog.text
    assert not server.requests


# What goes wrong


def test_a_file_that_was_cut_off_is_completed_and_a_lost_one_replaced(masc, server, get, tmp_path):
    get()
    root = tmp_path / "masc" / "download"
    (root / con("01")).write_bytes(b"01" * 30_000)
    (root / con("02")).unlink()
    server.sent.clear()
    assert get().n_fetched == 2
    assert sum(server.sent.values()) == 40_000 + 100_000
    assert (root / con("01")).read_bytes() == b"01" * 50_000


def test_a_changed_byte_is_found_by_verifying_and_put_right(masc, get, tmp_path, caplog):
    get()
    file = tmp_path / "masc" / "download" / con("03")
    file.write_bytes(b"x" + file.read_bytes()[1:])
    assert get().n_fetched == 0
    assert get(verify=True).n_fetched == 1
    assert f"{file}: another sha256 checksum." in caplog.text
    assert file.read_bytes() == b"03" * 50_000


def test_a_changed_byte_is_reported_even_if_nothing_can_be_fetched(masc, server, get, tmp_path):
    get()
    file = tmp_path / "masc" / "download" / con("03")
    file.write_bytes(b"x" + file.read_bytes()[1:])
    server.close()
    with pytest.raises(DownloadError, match="not everything is there.\nosf: .*ConnectionRefused"):
        get(verify=True)
    assert file.exists()


def test_one_file_that_fails_doesnt_stop_the_others(masc, server, get, tmp_path):
    del server.files[next(p for p, f in server.files.items() if f is masc[con("01")])]
    with pytest.raises(DownloadError, match=r"osf: .*it answers 404") as caught:
        get()
    assert "What has come stays; the same command goes on from there." in str(caught.value)
    assert "by hand" not in str(caught.value)
    root = tmp_path / "masc" / "download"
    assert len(below(root)) == 6


def test_a_source_that_refuses_is_not_asked_for_every_file_and_the_steps_are_told(
    masc, server, get, tmp_path
):
    tree = {f"sub-01/ses-0/meg/{n}_meg.con": b"x" * 10 for n in range(200)}
    for file in add_osf(server, "ag3kj", tree).values():
        file.content, file.tag = HTML, ""
    with pytest.raises(DownloadError, match="a web page came instead of data") as caught:
        get(subjects=["01"])
    asked = {path for path, _ in server.requests if path.startswith("/download/ag3kj/")}
    assert len(asked) < 20
    assert "https://osf.io/h2tzn" in str(caught.value)
    assert str(tmp_path / "masc" / "download") in str(caught.value)


def test_a_new_list_is_asked_for_only_on_request_and_replaces_the_old(masc, server, get, tmp_path):
    get()
    tree = {"participants.tsv": b"participant_id\nsub-01\n", con("01"): masc[con("01")].content}
    add_osf(server, "ag3kj", tree)
    assert get().n_fetched == 0
    summary = get(refresh=True)
    assert (summary.n_fetched, summary.n_files) == (1, 6)  # a sound is not listed anymore
    content = (tmp_path / "masc" / "download" / "participants.tsv").read_bytes()
    assert content == b"participant_id\nsub-01\n"


def test_an_old_list_outlives_a_refresh_that_fails(masc, server, get):
    get()
    server.close()
    with pytest.raises(DownloadError, match="ConnectionRefused"):
        get(refresh=True)
    assert get().n_files == 7


def test_an_unreadable_manifest_is_made_anew(masc, server, get, tmp_path, caplog):
    get()
    (tmp_path / "masc" / "download" / FOLDER / "manifest.json").write_text("{")
    server.sent.clear()
    assert get().n_fetched == 0
    assert "manifest.json is unreadable" in caplog.text
    assert sum(server.sent[path] for path in server.sent if "/download/" in path) == 0


def test_a_disk_without_room_is_told_before_anything_comes(masc, server, small_disk):
    masc[con("01")].content = bytes(3_000_000)
    tree = {con("01"): bytes(3_000_000), "stimuli/audio/a.wav": b"RIFF"}
    add_osf(server, "ag3kj", tree)
    connection = Connection({"osf": f"{server.url}/v2"}, patience=0.0)
    with pytest.raises(OSError, match=r"GB are to come, and 0\.002 GB are free"):
        download("gwilliams2022", small_disk, subjects="01", connection=connection)
    assert not any(path.startswith("/download") for path in server.sent)


# Data that are there already


def test_local_data_are_linked_and_nothing_is_copied_or_asked(masc, server, get, tmp_path):
    theirs = tmp_path / "theirs"
    for path in (con("01"), con("02"), "stimuli/audio/ag3kj.wav", "participants.tsv", ".DS_Store"):
        (theirs / path).parent.mkdir(parents=True, exist_ok=True)
        (theirs / path).write_bytes(b"theirs")
    summary = get(local_path=theirs)
    root = tmp_path / "masc" / "download"
    assert server.requests == []
    assert summary.n_files == 4
    assert (root / con("01")).readlink() == theirs / con("01")
    assert (root / con("01")).read_bytes() == b"theirs"
    assert get().n_files == 4  # and from now on nobody is asked either
    assert server.requests == []
    get(refresh=True)  # fills up from the network, and writes to nothing of theirs
    assert (root / con("01")).read_bytes() == b"01" * 50_000
    assert all(file.read_bytes() == b"theirs" for file in theirs.rglob("*") if file.is_file())


def test_local_data_of_the_published_layout_are_found_below_download(get, tmp_path):
    theirs = tmp_path / "theirs" / "download"
    for path in (con("01"), "stimuli/audio/ag3kj.wav"):
        (theirs / path).parent.mkdir(parents=True)
        (theirs / path).write_bytes(b"theirs")
    assert get(local_path=tmp_path / "theirs").n_files == 2
    assert (tmp_path / "masc" / "download" / con("01")).readlink() == theirs / con("01")


def test_local_data_that_arent_the_study_are_refused(masc, server, get, tmp_path):
    (tmp_path / "theirs").mkdir()
    with pytest.raises(DataError, match=r"local_path=.*theirs has none of the files"):
        get(local_path=tmp_path / "theirs")
    (tmp_path / "theirs" / "participants.tsv").write_text("x")
    with pytest.raises(DownloadError, match=r"no sub-\*/ses-\*/meg/\*_meg\.con"):
        get(local_path=tmp_path / "theirs")
    get()
    with pytest.raises(DataError, match="lie one in the other"):
        get(local_path=tmp_path / "masc")


def test_links_to_nothing_are_counted_and_left_out(get, tmp_path, caplog):
    theirs = tmp_path / "theirs"
    for path in (con("01"), "stimuli/audio/ag3kj.wav"):
        (theirs / path).parent.mkdir(parents=True)
        (theirs / path).write_bytes(b"theirs")
    (theirs / "participants.tsv").symlink_to(".git/annex/absent")
    assert get(local_path=theirs).n_files == 2
    assert "participants.tsv and 0 other file(s)" in caplog.text
    assert "datalad get" in caplog.text


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


# The command


def run(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    code = script.main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_command_downloads_subjects_and_says_what_is_there(masc, server, tmp_path, capsys):
    options = [f"path={tmp_path}", "subjects=[01,02]", f"server.osf={server.url}/v2", "verify=true"]
    code, out, _ = run(capsys, "gwilliams2022", *options)
    assert code == 0
    assert out == f"gwilliams2022: 6 files are in {tmp_path}/download (6 came now, 0.2 MB).\n"


def test_command_tells_problems_from_mistakes(tmp_path, capsys):
    code, _, err = run(capsys, "brennan2019", f"path={tmp_path}")
    assert code == 1
    assert "brennan2019: not everything is there." in err
    for arguments, message in {
        ("gwiliams2022", f"path={tmp_path}"): "Did you mean 'gwilliams2022'",
        ("gwilliams2022", "subject=01"): "Did you mean 'subjects'",
        ("gwilliams2022", "verify"): "Option verify needs a value",
        ("gwilliams2022", "verify=yes"): "verify=yes: give true or false",
        ("gwilliams2022", "verify=true", "verify=true"): "given twice",
        ("gwilliams2022", "parallel=0"): "parallel=0",
        ("gwilliams2022", "server.ofs=x"): "Did you mean 'osf'",
        ("osf:abc",): "needs a folder: path=FOLDER",
    }.items():
        code, _, err = run(capsys, *arguments)
        assert (code, message in err) == (2, True), err
    assert run(capsys)[0] == 2
    assert run(capsys, "--help")[0] == 0


def test_a_dataset_of_a_service_goes_where_it_is_told(server, tmp_path, capsys):
    add_osf(server, "xyz", {"sub-01/a.con": b"1"})
    code, _, _ = run(capsys, "osf:xyz", f"path={tmp_path / 'x'}", f"server.osf={server.url}/v2")
    assert code == 0
    assert below(tmp_path / "x") == {"sub-01/a.con"}
