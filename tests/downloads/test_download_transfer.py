"""One file on its way: broken connections, servers that lie, and what is left behind."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import HTML, FileServer, Served

from bm.core.messages import DataError
from bm.studies.downloads.client import Client, DownloadError, Refused
from bm.studies.downloads.credentials import Anonymous
from bm.studies.downloads.manifest import RemoteFile
from bm.studies.downloads.transfer import fetch

MB = 1 << 20
CONTENT = hashlib.shake_128(b"data").digest(2 * MB)
OTHER = hashlib.shake_128(b"other").digest(2 * MB)
MD5 = {"md5": hashlib.md5(CONTENT).hexdigest()}
LOST = 1 << 16  # at most so many bytes of a broken connection never reach the disk


@pytest.fixture
def get(
    server: FileServer, client: Client, tmp_path: Path
) -> Callable[..., tuple[RemoteFile, int]]:
    """Fetch ``a/data.con``; gives it and the sum of the bytes reported."""

    def get(size: int | None = 2 * MB, **hashes: str) -> tuple[RemoteFile, int]:
        file = RemoteFile("a/data.con", f"{server.url}/data", size, hashes)
        gained: list[int] = []
        fetched = fetch(file, tmp_path, client, Anonymous(), gained.append)
        return fetched, sum(gained)

    return get


def there(tmp_path: Path) -> list[str]:
    return sorted(file.name for file in (tmp_path / "a").iterdir())


def test_file_arrives_whole_with_its_checksum_and_leaves_nothing_beside_it(server, get, tmp_path):
    server.add("/data", CONTENT)
    fetched, gained = get(None)
    assert (tmp_path / "a/data.con").read_bytes() == CONTENT
    assert there(tmp_path) == ["data.con"]
    assert (fetched.size, gained) == (2 * MB, 2 * MB)
    assert fetched.hashes == {"sha256": hashlib.sha256(CONTENT).hexdigest()}


def test_empty_file_arrives(server, get, tmp_path):
    server.add("/data", b"")
    get(0)
    assert (tmp_path / "a/data.con").read_bytes() == b""


def test_dropped_connections_cost_no_second_download(server, get, tmp_path):
    server.add("/data", CONTENT, drops=[700_000, 500_000, 300_000])
    _, gained = get(**MD5)
    assert (tmp_path / "a/data.con").read_bytes() == CONTENT
    assert gained == 2 * MB
    assert server.sent["/data"] <= 2 * MB + 3 * LOST
    ranges = [headers.get("Range") for headers in server.asked("/data")]
    assert ranges[0] is None
    assert len(ranges) == 4
    assert all(headers["If-Range"] == '"1"' for headers in server.asked("/data")[1:])


def test_a_file_that_changes_while_it_comes_is_fetched_anew(server, get, tmp_path):
    server.add("/data", OTHER, drops=[900_000], successor=Served(CONTENT, tag='"2"'))
    _, gained = get()
    assert (tmp_path / "a/data.con").read_bytes() == CONTENT
    assert (server.sent["/data"], gained) == (2 * MB + 900_000, 2 * MB)


def test_a_beginning_of_another_version_is_not_continued(server, get, tmp_path):
    part = tmp_path / "a/data.con.part"
    part.parent.mkdir()
    part.write_bytes(OTHER[:MB])
    part.with_name("data.con.part-version").write_text('"0"')
    server.add("/data", CONTENT)
    _, gained = get()
    assert (tmp_path / "a/data.con").read_bytes() == CONTENT
    assert (server.sent["/data"], gained) == (2 * MB, 2 * MB)


def test_a_beginning_of_unknown_version_is_continued_only_if_a_checksum_will_tell(
    server, get, tmp_path
):
    part = tmp_path / "a/data.con.part"
    part.parent.mkdir()
    server.add("/data", CONTENT, tag="")
    part.write_bytes(CONTENT[:MB])
    get()
    assert server.sent["/data"] == 2 * MB
    (tmp_path / "a/data.con").unlink()
    part.write_bytes(CONTENT[:MB])
    get(**MD5)
    assert server.sent["/data"] == 3 * MB
    assert (tmp_path / "a/data.con").read_bytes() == CONTENT


def test_a_wrong_beginning_is_found_by_the_checksum_and_fetched_again(server, get, tmp_path):
    part = tmp_path / "a/data.con.part"
    part.parent.mkdir()
    part.write_bytes(OTHER[:MB])
    server.add("/data", CONTENT, tag="")
    _, gained = get(**MD5)
    assert (tmp_path / "a/data.con").read_bytes() == CONTENT
    assert (server.sent["/data"], gained) == (3 * MB, 2 * MB)


def test_a_server_that_claims_to_continue_another_version_is_not_believed(server, get, tmp_path):
    part = tmp_path / "a/data.con.part"
    part.parent.mkdir()
    part.write_bytes(OTHER[:MB])
    part.with_name("data.con.part-version").write_text('"0"')
    file = server.add("/data", CONTENT, tag='"0"')  # accepts If-Range: "0" ...
    file.headers["ETag"] = '"1"'  # ... and sends the rest of version 1
    get()
    assert (tmp_path / "a/data.con").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server, get, tmp_path):
    server.add("/data", CONTENT, drops=[MB], ranges=False)
    _, gained = get()
    assert (tmp_path / "a/data.con").read_bytes() == CONTENT
    assert server.sent["/data"] == 3 * MB
    assert gained == 2 * MB


def test_a_whole_part_needs_no_request(server, get, tmp_path):
    part = tmp_path / "a/data.con.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    get(**MD5)
    assert server.requests == []
    assert there(tmp_path) == ["data.con"]


def test_a_part_that_is_too_long_is_thrown_away(server, get, tmp_path):
    part = tmp_path / "a/data.con.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT + b"more")
    part.with_name("data.con.part-version").write_text('"1"')
    server.add("/data", CONTENT)
    get(None)  # the server has nothing after its end: 416
    assert (tmp_path / "a/data.con").read_bytes() == CONTENT


def test_a_cut_off_file_of_another_program_is_completed(server, get, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/data.con").write_bytes(CONTENT[: MB + 17])
    server.add("/data", CONTENT)
    get(**MD5)
    assert (tmp_path / "a/data.con").read_bytes() == CONTENT
    assert server.sent["/data"] == MB - 17


def test_what_a_link_leads_to_is_never_written(server, get, tmp_path):
    original = tmp_path / "theirs.con"
    original.write_bytes(CONTENT[:MB])
    (tmp_path / "a").mkdir()
    (tmp_path / "a/data.con").symlink_to(original)
    server.add("/data", CONTENT)
    get(**MD5)
    assert original.read_bytes() == CONTENT[:MB]
    assert not (tmp_path / "a/data.con").is_symlink()
    assert (tmp_path / "a/data.con").read_bytes() == CONTENT


def test_a_folder_that_is_a_link_to_elsewhere_is_not_written_through(server, get, tmp_path):
    theirs = tmp_path.with_name(f"{tmp_path.name} of others")
    theirs.mkdir()
    (theirs / "data.con").write_bytes(CONTENT[:MB])
    (tmp_path / "a").symlink_to(theirs)
    server.add("/data", CONTENT)
    with pytest.raises(DataError, match="link that leads out"):
        get(**MD5)
    assert [file.name for file in theirs.iterdir()] == ["data.con"]
    assert server.requests == []


def test_wrong_content_is_fetched_twice_and_never_gets_the_name(server, get, tmp_path):
    server.add("/data", OTHER)
    with pytest.raises(DownloadError, match=r"a/data\.con: what came has another md5 checksum, 2"):
        get(**MD5)
    assert server.sent["/data"] == 4 * MB
    assert there(tmp_path) == []


def test_a_size_other_than_listed_is_not_downloaded(server, get, tmp_path):
    server.add("/data", CONTENT + b"more")
    with pytest.raises(DownloadError, match=r"2097156 bytes at its source, and 2097152.*refresh"):
        get()
    assert server.sent["/data"] <= 2 * MB + 4
    assert there(tmp_path) == []


@pytest.mark.parametrize("size", [None, 2 * MB, len(HTML)])
def test_a_web_page_instead_of_data_is_called_one(server, get, tmp_path, size):
    server.add("/data", b"\n " + HTML if size is None else HTML)
    with pytest.raises(Refused, match=r"/data: a web page came instead of data \('Just a moment"):
        get(size)
    assert there(tmp_path) == []
    assert len(server.requests) == 1


def test_a_page_is_welcome_where_one_is_asked_for(server, client, tmp_path):
    server.add("/index", HTML)
    file = RemoteFile("index.html", f"{server.url}/index", len(HTML))
    fetch(file, tmp_path, client, Anonymous(), lambda n: None)
    assert (tmp_path / "index.html").read_bytes() == HTML


def test_text_that_begins_with_a_bracket_is_no_page(server, get, tmp_path):
    server.add("/data", b"<hdr>1</hdr>")
    get(12)
    assert (tmp_path / "a/data.con").read_bytes() == b"<hdr>1</hdr>"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_not_tried_again(server, get, status):
    server.add("/data", CONTENT, statuses=[status] * 9)
    with pytest.raises(Refused, match=f"/data: it answers {status}"):
        get()
    assert len(server.requests) == 1


def test_a_lost_address_says_to_ask_for_a_new_list(get):
    with pytest.raises(DownloadError, match=r"/data: it answers 404 Not Found.*refresh=true"):
        get()


def test_a_busy_server_is_asked_again_as_late_as_it_says(server, client, get, tmp_path):
    waits: list[float] = []
    client.pause = waits.append  # type: ignore[method-assign]
    server.add("/data", CONTENT, statuses=[429, 503], headers={"Retry-After": "7"})
    get()
    assert (tmp_path / "a/data.con").read_bytes() == CONTENT
    assert waits == [7.0, 7.0]


def test_a_server_that_stays_busy_is_given_up_after_five_tries(server, get):
    server.add("/data", CONTENT, statuses=[502] * 99)
    with pytest.raises(DownloadError, match="it answers 502 Bad Gateway, 5 times"):
        get()
    assert len(server.requests) == 5


def test_a_server_that_isnt_there_is_named(server, get):
    server.close()
    with pytest.raises(DownloadError, match=r"/data: ConnectionRefusedError.*, 5 times"):
        get()


def test_connections_that_bring_nothing_are_given_up(server, get, tmp_path):
    server.add("/data", CONTENT, drops=[MB, *[0] * 50])
    with pytest.raises(DownloadError, match=r"a/data\.con: .*6 times"):
        get()
    assert len(server.requests) == 7
    assert (tmp_path / "a/data.con.part").stat().st_size >= MB - LOST


def test_a_slow_server_is_waited_for(server, get, tmp_path):
    server.add("/data", CONTENT, delay=0.01)
    get()
    assert (tmp_path / "a/data.con").read_bytes() == CONTENT


def test_signatures_in_urls_dont_get_into_messages(server, client, tmp_path):
    file = RemoteFile("x", f"{server.url}/data?signature=SECRET")
    server.close()
    with pytest.raises(DownloadError) as caught:
        fetch(file, tmp_path, client, Anonymous(), lambda n: None)
    assert "SECRET" not in str(caught.value)


def test_a_full_disk_is_an_error_of_the_system(server, client, small_disk):
    content = CONTENT + CONTENT
    server.add("/data", content)
    file = RemoteFile("data", f"{server.url}/data", len(content))
    with pytest.raises(OSError, match="No space left"):
        fetch(file, small_disk, client, Anonymous(), lambda n: None)
    assert not (small_disk / "data").exists()
