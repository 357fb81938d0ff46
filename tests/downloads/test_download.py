"""Downloads of whole studies: what is asked for comes once, stays, and is put right."""

from pathlib import Path
from typing import Any

import pytest
from servers import HTML, FileServer, Served, add_osf, below

from bm.core.messages import DataError
from bm.studies.download import Connection, DownloadError, Summary, download, download_selection
from bm.studies.downloads.manifest import FOLDER
from scripts import download as script

SUBJECTS = ("01", "02", "03")
NODES = {"ag3kj": ["01"], "h2tzn": ["02"], "u5327": ["03"]}


def con(subject: str) -> str:
    return f"sub-{subject}/ses-0/meg/sub-{subject}_ses-0_task-0_meg.con"


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


def test_a_manifest_that_leads_out_of_the_folder_is_made_anew(masc, get, tmp_path):
    get()
    manifest = tmp_path / "masc" / "download" / FOLDER / "manifest.json"
    manifest.write_text(manifest.read_text().replace(con("01"), "../../stolen"))
    get()
    assert not (tmp_path / "stolen").exists()
    assert con("01") in manifest.read_text()


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
