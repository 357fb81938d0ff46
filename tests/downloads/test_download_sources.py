"""Services as they answer: lists of files, page by page and folder by folder, and logins."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from servers import HTML, FileServer, add_dryad, add_osf, webdav

from bm.core.messages import DataError
from bm.studies.downloads.client import Client, DownloadError, Refused
from bm.studies.downloads.credentials import Anonymous, find_token
from bm.studies.downloads.folders import Osf, WebDav
from bm.studies.downloads.manifest import RemoteFile
from bm.studies.downloads.sources import Dryad, Source, Urls, Zenodo
from bm.studies.downloads.studies import PLANS, find_plan
from bm.studies.downloads.transfer import fetch
from scripts import download as script

TREE = {
    "README": b"read me",
    "stimuli/audio/lw1_0.wav": b"RIFF",
    "sub-01/ses-0/meg/sub-01_task-0_meg.con": b"1" * 10,
    "sub-01/ses-0/anat/sub-01_T1w.nii.gz": b"brain",
    "sub-02/ses-0/meg/sub-02_task-0_meg.con": b"2" * 20,
    "sub-02/ses-0/meg/with blank & ümlaut.tsv": b"2",
    "sub-03/ses-0/meg/sub-03_task-0_meg.con": b"3" * 30,
}
MEG = ("*", "stimuli/**", "sub-{subject}/ses-*/meg/**")
USER, PASSWORD = "me@example.org", "päss:word"


def listed(source: Source, client: Client, subjects: list[str] | None = None) -> list[RemoteFile]:
    return list(source.list_files(client, source.patterns(subjects)))


# OSF


def osf(server: FileServer, *nodes: str) -> Osf:
    return Osf(name="osf", nodes=nodes, server=f"{server.url}/v2", include=MEG)


def test_osf_lists_all_pages_of_the_folders_that_are_needed(server, client):
    add_osf(server, "abc", TREE, page_size=1)
    files = {file.path: file for file in listed(osf(server, "abc"), client)}
    assert set(files) == set(TREE) - {"sub-01/ses-0/anat/sub-01_T1w.nii.gz"}
    con = files["sub-02/ses-0/meg/sub-02_task-0_meg.con"]
    assert con.size == 20
    assert set(con.hashes) == {"md5", "sha256"}


def test_osf_is_not_asked_about_other_peoples_folders(server, client):
    add_osf(server, "abc", TREE)
    files = listed(osf(server, "abc"), client, ["02"])
    assert [file.path for file in files if "sub-" in file.path] == [
        "sub-02/ses-0/meg/sub-02_task-0_meg.con",
        "sub-02/ses-0/meg/with blank & ümlaut.tsv",
    ]
    n_folders = len({path for path, _ in server.requests})
    assert n_folders == 6  # the root, stimuli, audio, sub-02, ses-0, meg


def test_osf_projects_are_joined_and_the_first_has_what_is_in_both(server, client):
    add_osf(server, "abc", {"participants.tsv": b"1", "sub-01/ses-0/meg/a.con": b"a"})
    add_osf(server, "def", {"participants.tsv": b"22", "sub-02/ses-0/meg/b.con": b"b"})
    files = listed(osf(server, "abc", "def"), client)
    assert {file.path: file.size for file in files} == {
        "participants.tsv": 1,
        "sub-01/ses-0/meg/a.con": 1,
        "sub-02/ses-0/meg/b.con": 1,
    }


def test_osf_gets_a_token_if_there_is_one_and_its_downloads_dont(server, client, monkeypatch):
    add_osf(server, "abc", {"README": b"x"})
    listed(osf(server, "abc"), client)
    assert "Authorization" not in server.requests[-1][1]
    monkeypatch.setenv("OSF_TOKEN", " abc123\n")
    source = osf(server, "abc")
    listed(source, client)
    assert server.requests[-1][1]["Authorization"] == "Bearer abc123"
    assert isinstance(source.auth_for("https://files.osf.io/x"), Anonymous)


def test_a_path_that_leads_out_of_the_folder_is_not_written(server, client):
    add_osf(server, "abc", {"a/../../../.bashrc": b"x"})
    source = Osf(name="osf", nodes=("abc",), server=f"{server.url}/v2")
    with pytest.raises(DataError, match=r"leads out of the folder"):
        listed(source, client)


@pytest.mark.parametrize("answer", [{"errors": []}, {"data": [{"id": 1}]}, [], {"data": None}])
def test_a_list_of_another_form_is_called_one(server, client, answer):
    server.routes["/v2/nodes/abc/files/osfstorage/"] = lambda _: answer
    with pytest.raises(DownloadError, match="isn't of the form expected"):
        listed(osf(server, "abc"), client)


def test_a_web_page_instead_of_a_list_is_a_refusal(server, client):
    server.add("/v2/nodes/abc/files/osfstorage/", HTML)
    with pytest.raises(Refused, match="a web page came instead of data"):
        listed(osf(server, "abc"), client)


# Dryad


def test_dryad_lists_all_pages_and_its_token_doesnt_travel_on(
    server, client, monkeypatch, tmp_path
):
    files = {"Natural Speech.zip": b"z" * 9, "N400.zip": b"n", "README.md": b"r"}
    add_dryad(server, "10.5061/dryad.070jc", files, token="abc")
    monkeypatch.setenv("DRYAD_TOKEN", "abc")
    source = Dryad(name="dryad", doi="10.5061/dryad.070jc", server=server.url)
    found = {file.path: file for file in listed(source, client)}
    assert {path: file.size for path, file in found.items()} == {
        "Natural Speech.zip": 9,
        "N400.zip": 1,
        "README.md": 1,
    }
    file = found["Natural Speech.zip"]
    assert set(file.hashes) == {"sha256"}
    other = server.url.replace("127.0.0.1", "localhost")  # as if stored elsewhere
    server.files["/api/v2/files/0/download"].location = f"{other}/store/0"
    fetch(file, tmp_path, client, source.auth_for(str(file.url)), lambda n: None)
    assert (tmp_path / "Natural Speech.zip").read_bytes() == b"z" * 9
    assert "Authorization" not in server.asked("/store/0")[0]


def test_dryad_without_a_token_asks_nobody(server, client):
    source = Dryad(name="dryad", doi="10.5061/x", server=server.url)
    with pytest.raises(Refused, match="DRYAD_TOKEN isn't set"):
        listed(source, client)
    assert server.requests == []


@pytest.mark.parametrize("value", ["two words", "tökén", "a\nb"])
def test_a_token_that_cant_be_one_is_refused_without_showing_it(monkeypatch, value):
    monkeypatch.setenv("DRYAD_TOKEN", value)
    with pytest.raises(DataError, match="DRYAD_TOKEN holds no token") as caught:
        find_token("DRYAD_TOKEN")
    assert value not in str(caught.value)


# Zenodo and plain servers


def test_zenodo_lists_names_sizes_and_checksums(server, client):
    url = f"{server.url}/api/records/42/files/a.zip/content"
    item = {"key": "a.zip", "size": 3, "checksum": "md5:ABC", "links": {"self": url}}
    server.routes["/api/records/42"] = lambda _: {"files": [item]}
    source = Zenodo(name="zenodo", record="42", server=server.url)
    assert listed(source, client) == [RemoteFile("a.zip", url, 3, {"md5": "abc"})]


def test_plain_servers_tell_sizes(server, client):
    server.add("/papers/my file.zip", b"12345")
    source = Urls(name="url", server=f"{server.url}/papers", files=("my file.zip",))
    url = f"{server.url}/papers/my%20file.zip"
    assert listed(source, client) == [RemoteFile("my file.zip", url, 5)]


def test_datasets_of_services_need_no_plan():
    assert find_plan("osf:ag3kj").sources[0] == Osf(name="osf", nodes=("ag3kj",))
    assert find_plan("zenodo:42").sources[0] == Zenodo(name="zenodo", record="42")
    assert find_plan("dryad:10.5061/x").sources[0] == Dryad(name="dryad", doi="10.5061/x")
    (source,) = find_plan("https://example.org/a/b.zip").sources
    assert source == Urls(name="url", server="https://example.org/a", files=("b.zip",))
    with pytest.raises(ValueError, match="Did you mean 'gwilliams2022'"):
        find_plan("gwiliams2022")


# WebDAV


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[tuple[WebDav, Path]]:
    """A collection as Donders serves it, and its folder."""
    folder = tmp_path / "collection"
    for path, content in TREE.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    with webdav(folder, "dccn/dsc 1", USER, PASSWORD) as url:
        yield (
            WebDav(
                name="donders",
                server=url,
                include=MEG,
                user_variable="DONDERS_USER",
                password_variable="DONDERS_PASSWORD",
                checksums="MANIFEST.txt",
            ),
            folder,
        )


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DONDERS_USER", USER)
    monkeypatch.setenv("DONDERS_PASSWORD", PASSWORD)


@pytest.mark.usefixtures("login")
def test_webdav_lists_and_fetches_what_is_needed(collection, client, tmp_path):
    source, _ = collection
    files = {file.path: file for file in listed(source, client)}
    assert set(files) == set(TREE) - {"sub-01/ses-0/anat/sub-01_T1w.nii.gz"}
    assert files["sub-03/ses-0/meg/sub-03_task-0_meg.con"].size == 30
    for file in files.values():
        fetch(file, tmp_path / "out", client, source.auth_for(str(file.url)), lambda n: None)
        assert (tmp_path / "out" / file.path).read_bytes() == TREE[file.path]


@pytest.mark.usefixtures("login")
def test_webdav_continues_what_was_cut_off(collection, client, tmp_path):
    source, folder = collection
    content = bytes(range(256)) * 4000
    (folder / "big").write_bytes(content)
    (file,) = [file for file in listed(source, client) if file.path == "big"]
    fetch(file, tmp_path / "out", client, source.auth(), lambda n: None)
    version = client.get(str(file.url), source.auth()).headers["ETag"]
    part = tmp_path / "out" / "big.part"
    part.write_bytes(content[:700_000])
    part.with_name("big.part-version").write_text(version)
    (tmp_path / "out" / "big").unlink()
    gained: list[int] = []
    fetch(file, tmp_path / "out", client, source.auth(), gained.append)
    assert gained[0] == 700_000
    assert sum(gained) == len(content)
    assert (tmp_path / "out" / "big").read_bytes() == content


def test_webdav_login_comes_from_netrc(collection, client, tmp_path):
    source, _ = collection
    with pytest.raises(Refused, match=r"no login: set DONDERS_USER and.*machine 127\.0\.0\.1"):
        listed(source, client)
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n", encoding="utf-8")
    netrc.chmod(0o600)
    assert len(listed(source, client)) == 6


def test_wrong_login_is_a_refusal_that_shows_no_password(collection, client, monkeypatch, caplog):
    source, _ = collection
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("DONDERS_USER", USER)
    monkeypatch.setenv("DONDERS_PASSWORD", "wrong-secret")
    with pytest.raises(Refused, match="it answers 401") as caught:
        listed(source, client)
    assert "wrong-secret" not in str(caught.value) + repr(source) + caplog.text


@pytest.mark.usefixtures("login")
@pytest.mark.parametrize("line", ["{hash}  {path}", "{path}\t30\t{hash}", "./{path} {hash}"])
def test_checksums_of_a_collection_are_found_whatever_the_columns(collection, client, line):
    source, folder = collection
    path = "sub-03/ses-0/meg/sub-03_task-0_meg.con"
    text = line.format(hash="AB" * 32, path=path)
    (folder / "MANIFEST.txt").write_text(f"# files\n{text}\n{'0' * 64}  other\n")
    files = {file.path: file for file in listed(source, client)}
    assert files[path].hashes == {"sha256": "ab" * 32}
    assert [path for path, file in files.items() if file.hashes] == [path]


@pytest.mark.usefixtures("login")
def test_a_server_that_speaks_no_webdav_is_called_one(server, client):
    source = WebDav(
        name="donders",
        server=server.url,
        user_variable="DONDERS_USER",
        password_variable="DONDERS_PASSWORD",
        checksums="MANIFEST.txt",
    )
    with pytest.raises(DownloadError, match="it answers 501"):
        listed(source, client)


# The studies


def test_studies_ask_the_places_that_their_papers_name():
    servers = {
        name: [urlsplit(source.server).hostname for source in plan.sources]
        for name, plan in PLANS.items()
    }
    assert servers == {
        "gwilliams2022": ["api.osf.io"],
        "broderick2019": ["datadryad.org", "ai.honu.io"],
        "brennan2019": [None],
        "schoffelen2019": ["webdav.data.ru.nl", "ai.honu.io"],
    }
    assert PLANS["gwilliams2022"].sources[0].nodes == ("ag3kj", "h2tzn", "u5327")


def test_every_source_of_a_study_says_what_to_do_by_hand_and_where():
    for plan in PLANS.values():
        for source in plan.sources:
            assert source.landmarks
            assert "/data/here" in source.steps.format(root="/data/here")


def test_the_guide_has_a_section_for_each_study_and_names_what_is_read(root):
    guide = (root / "docs" / "downloads.md").read_text(encoding="utf-8")
    for name, plan in PLANS.items():
        assert f"\n### {name}\n" in guide
        for source in plan.sources:
            links = re.findall(r"https?://[^\s,)]+", source.steps)
            assert [link for link in links if link.rstrip(".") not in guide] == []
            for variable in ("token_variable", "user_variable", "password_variable"):
                assert f"`{getattr(source, variable, 'DRYAD_TOKEN')}`" in guide
    for key in script.KEYS:
        assert f"{key}=" in guide or f"`{key}`" in guide, key
