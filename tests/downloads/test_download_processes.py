"""Downloads by real processes: many at once, and killed in the middle."""

import os
import signal
import subprocess
import sys
import time

import pytest
from servers import CHUNK, add_osf

from bm.studies.download import Connection, download

MB = 1 << 20
CON = "sub-01/ses-0/meg/sub-01_ses-0_task-{}_meg.con"

EIGHT = """
import logging, multiprocessing, sys
from bm.studies.download import Connection, download

def job(barrier):
    barrier.wait()
    connection = Connection({"osf": sys.argv[2]}, patience=0.1)
    summary = download("gwilliams2022", sys.argv[1], verify=True, connection=connection)
    assert summary.n_files == 9, summary

logging.disable(logging.WARNING)
context = multiprocessing.get_context("fork")  # importing eight times would take longer
barrier = context.Barrier(8)
jobs = [context.Process(target=job, args=(barrier,)) for _ in range(8)]
for process in jobs:
    process.start()
for process in jobs:
    process.join()
sys.exit(sum(process.exitcode != 0 for process in jobs))
"""


@pytest.mark.slow
def test_eight_processes_at_once_fetch_each_file_once(server, tmp_path, python_env):
    tree = {CON.format(task): bytes([task]) * 300_000 for task in range(4)}
    tree |= {f"stimuli/audio/{n}.wav": bytes([n]) * 100_000 for n in range(5)}
    add_osf(server, "ag3kj", tree)
    for node in ("h2tzn", "u5327"):
        add_osf(server, node, {})
    command = [sys.executable, "-c", EIGHT, str(tmp_path), f"{server.url}/v2"]
    result = subprocess.run(command, env=python_env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    sent = {path: n for path, n in server.sent.items() if path.startswith("/download/")}
    assert sent == {path: len(file.content) for path, file in server.files.items()}
    lists = [path for path, _ in server.requests if path.startswith("/v2/")]
    assert len(lists) < 20  # one process asked: its 8 folders, in pages
    assert (tmp_path / "download" / CON.format(2)).read_bytes() == bytes([2]) * 300_000


@pytest.mark.slow
def test_a_killed_download_goes_on_where_it_was(server, tmp_path, python_env):
    content = os.urandom(8 * MB)
    tree = {CON.format(0): content, "stimuli/audio/a.wav": b"RIFF" * 1000}
    for node in ("ag3kj", "h2tzn", "u5327"):
        add_osf(server, node, tree if node == "ag3kj" else {})
    slow = next(file for file in server.files.values() if len(file.content) == 8 * MB)
    slow.delay = 0.02  # 2.6 s in all
    arguments = ["gwilliams2022", f"path={tmp_path}", f"server.osf={server.url}/v2"]
    command = [sys.executable, "-m", "scripts.download", *arguments]
    target = tmp_path / "download" / CON.format(0)
    part = target.with_name(f"{target.name}.part")
    with subprocess.Popen(command, env=python_env, stderr=subprocess.DEVNULL) as process:
        while not (part.exists() and part.stat().st_size > 3 * MB):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    kept = part.stat().st_size
    slow.delay = 0.0
    before = server.sent.total()
    download("gwilliams2022", tmp_path, connection=Connection({"osf": f"{server.url}/v2"}))
    assert target.read_bytes() == content
    lists = sum(n for path, n in server.sent.items() if path.startswith("/v2/"))
    in_flight = CHUNK  # of the process that was killed
    assert server.sent.total() - before <= 8 * MB - kept + lists + in_flight
    assert not part.exists()
