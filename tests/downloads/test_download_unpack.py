"""Archives: nothing is written outside, nothing half, nothing twice."""

import stat
import zipfile
from pathlib import Path

import pytest

from bm.core.messages import DataError
from bm.studies.downloads.manifest import Manifest
from bm.studies.downloads.paths import find_files, leads_to, matches, safe_path
from bm.studies.downloads.unpack import Archive, unpack


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("name", "members", "into", "expected"),
    [
        ("proc.zip", ["S01.mat", "S03.mat"], None, {"proc/S01.mat", "proc/S03.mat"}),
        ("proc.zip", ["proc/S01.mat"], None, {"proc/S01.mat"}),
        ("proc.zip", ["lock/S01.mat", "lock/S03.mat"], None, {"lock/S01.mat", "lock/S03.mat"}),
        ("proc.zip", ["a/1", "b/2"], None, {"proc/a/1", "proc/b/2"}),
        ("private.zip", ["audio1.wav"], "private", {"private/audio1.wav"}),
        ("private.zip", ["private/audio1.wav"], "private", {"private/audio1.wav"}),
        ("derivatives.zip", ["phonemes/1.Text"], "derivatives", {"derivatives/phonemes/1.Text"}),
        ("doi_1.zip", ["Natural Speech.zip"], "", {"Natural Speech.zip"}),
    ],
)  # fmt: skip
def test_content_gets_the_folder_that_readers_look_in(data, name, members, into, expected):
    archive = write_zip(data / name, {member: member.encode() for member in members})
    files = unpack(archive, data, Archive(name, into))
    assert below(data) == expected | {name}
    assert {file.path for file in files} == expected
    assert all(file.find_fault(data / file.path, thorough=True) is None for file in files)


def test_what_macos_leaves_in_archives_is_left_there(data):
    members = ["a/S01.mat", "__MACOSX/a/._S01.mat", "a/._S01.mat", "a/.DS_Store"]
    archive = write_zip(data / "a.zip", dict.fromkeys(members, b"x"))
    unpack(archive, data, Archive("a.zip"))
    assert below(data) == {"a.zip", "a/S01.mat"}


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/tmp/evil", "a/..", "C:\\evil", "..\\evil", "\\evil"]
)
def test_a_path_that_leads_out_is_refused_before_anything_is_written(data, name):
    archive = write_zip(data / "a.zip", {"good": b"1", name: b"2"})
    with pytest.raises(DataError, match="leads out of the folder of the data"):
        unpack(archive, data, Archive("a.zip"))
    assert below(data.parent) == {"data/a.zip"}


def test_a_link_in_an_archive_is_refused_before_anything_is_written(data):
    with zipfile.ZipFile(data / "a.zip", "w") as file:
        file.writestr("good", b"1")
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc")
    with pytest.raises(DataError, match=r"a\.zip holds a link, link: unpack it by hand"):
        unpack(data / "a.zip", data, Archive("a.zip"))
    assert below(data) == {"a.zip"}


def test_a_folder_that_is_a_link_to_elsewhere_is_not_written_through(data, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (data / "a").symlink_to(tmp_path / "elsewhere")
    archive = write_zip(data / "a.zip", {"a/file": b"1"})
    with pytest.raises(DataError, match="link that leads out"):
        unpack(archive, data, Archive("a.zip"))
    assert below(tmp_path / "elsewhere") == set()


def test_files_that_are_there_and_right_are_not_written_again(data):
    archive = write_zip(
        data / "a.zip", {"a/right": b"12345", "a/wrong": b"12345", "a/cut": b"12345"}
    )
    (data / "a").mkdir()
    for name, content in {"right": b"12345", "wrong": b"54321", "cut": b"123"}.items():
        (data / "a" / name).write_bytes(content)
    before = (data / "a" / "right").stat().st_ino
    unpack(archive, data, Archive("a.zip"))
    assert (data / "a" / "right").stat().st_ino == before
    assert {(data / "a" / name).read_bytes() for name in ("right", "wrong", "cut")} == {b"12345"}


def test_damaged_archives_are_named_with_the_remedy(data):
    content = bytes(range(256)) * 400
    archive = write_zip(data / "a.zip", {"a/1": content})
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.zip is damaged or cut off .* Delete it"):
        unpack(archive, data, Archive("a.zip"))
    archive.write_bytes(whole[:60] + b"\0\0\0\0" + whole[64:])
    with pytest.raises(DataError, match=r"a\.zip is damaged or cut off .* Delete it"):
        unpack(archive, data, Archive("a.zip"))
    assert not (data / "a" / "1").exists()


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_content_is_named_however_it_is_compressed(data, compression):
    archive = data / "a.zip"
    with zipfile.ZipFile(archive, "w", compression) as file:
        file.writestr("a/1", bytes(range(256)) * 400)
    whole = archive.read_bytes()
    archive.write_bytes(whole[:48] + bytes(16) + whole[64:])
    with pytest.raises(DataError, match=r"a\.zip is damaged or cut off .* Delete it"):
        unpack(archive, data, Archive("a.zip"))


def test_a_manifest_of_endless_brackets_is_made_anew(data):
    (data / ".download").mkdir()
    (data / ".download" / "manifest.json").write_text("[" * 100_000)
    assert Manifest(data).files("osf", ["*"]) is None


def test_an_encrypted_archive_is_for_hands(data):
    archive = write_zip(data / "a.zip", {"a/1": b"1"})
    content = bytearray(archive.read_bytes())
    content[6] |= 1  # the flag "encrypted", in the file's header ...
    content[content.index(b"PK\x01\x02") + 8] |= 1  # ... and in the directory
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"can't be unpacked: .*encrypted.* by hand"):
        unpack(archive, data, Archive("a.zip"))


def test_room_is_looked_for_before_anything_is_written(small_disk):
    archive = write_zip(small_disk / "a.zip", {"1": bytes(1_000_000), "2": bytes(3_000_000)})
    with pytest.raises(OSError, match=r"0\.0 GB come out|GB come out of the archive"):
        unpack(archive, small_disk, Archive("a.zip"))
    assert below(small_disk) == {"a.zip"}


# Paths and patterns


def test_paths_are_cleaned():
    assert safe_path("./a//b.txt") == "a/b.txt"
    assert safe_path("a\\b.txt") == "a/b.txt"
    assert safe_path("a/..b") == "a/..b"


@pytest.mark.parametrize("path", ["", ".", "/", "a\0b"])
def test_paths_of_nothing_are_refused(path):
    with pytest.raises(DataError, match="leads out"):
        safe_path(path)


def test_the_manifest_is_no_file_of_the_data():
    with pytest.raises(DataError, match="file of the download itself"):
        safe_path("./.download/manifest.json")
    assert safe_path("a/.download") == "a/.download"


def test_patterns_go_level_by_level():
    assert matches("sub-01/ses-0/meg/a.con", ["sub-*/ses-*/meg/**"])
    assert matches("sub-01/ses-0/meg/a.ds/a.meg4", ["sub-*/ses-*/meg/**"])
    assert not matches("sub-01/ses-0/anat/a.nii", ["sub-*/ses-*/meg/**", "*"])
    assert not matches("sub-01", ["sub-*/**"])
    assert matches("README", ["*"])
    assert matches("sub-01/a", ["**"])


def test_only_folders_that_can_hold_what_is_needed_are_entered():
    patterns = ["*", "sub-02/ses-*/meg/**", "stimuli/a/*"]
    entered = ["sub-02", "sub-02/ses-0", "sub-02/ses-0/meg", "sub-02/ses-0/meg/a.ds", "stimuli/a"]
    passed = ["sub-01", "sub-02/ses-0/anat", "stimuli/b", "stimuli/a/b", "code"]
    assert [folder for folder in entered + passed if leads_to(folder, patterns)] == entered


def test_hidden_and_unfinished_files_are_no_data(data):
    for name in ("a.con", "b.con.part", "b.con.part-version", ".c.con"):
        (data / name).write_text("x")
    (data / ".hidden").mkdir()
    (data / ".hidden" / "d.con").write_text("x")
    assert list(find_files(data, ["**"])) == ["a.con"]
    assert list(find_files(data / "absent", ["**"])) == []
