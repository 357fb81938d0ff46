"""Nothing that is read is run, secrets stay secret, and what bm stands on is listed."""

import ast
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bm.checkpoint import write_checkpoint
from bm.core.cache import Cache

CALLS = set(
    "eval exec compile __import__ hash os.system os.popen os.chmod os.umask pickle.load "
    "pickle.loads pickle.dump pickle.dumps marshal.loads shelve.open joblib.load "
    "pd.read_pickle pd.eval yaml.load yaml.unsafe_load tempfile.mktemp "
    "shutil.unpack_archive tarfile.open".split()
)
UNPICKLER = "bm/published/reader.py"
"""Holds the one unpickler, which knows a list of names and nothing else."""


def calls(root: Path) -> Iterator[tuple[str, str, ast.Call]]:
    """File, dotted name and node of every call in the package and the scripts."""
    for folder in ("bm", "scripts"):
        for path in sorted((root / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield str(path.relative_to(root)), ast.unparse(node.func), node


def test_nothing_that_is_read_is_run(root: Path) -> None:
    found = list(calls(root))
    assert len(found) > 5000
    assert not [(file, name) for file, name, _ in found if name in CALLS]
    assert not [
        (file, name)
        for file, name, node in found
        if any(one.arg == "shell" for one in node.keywords)
        or name.endswith((".extractall", ".extract"))
        or (any(one.arg == "allow_pickle" for one in node.keywords))
    ]
    loads = [(file, node) for file, name, node in found if name in ("torch.load", "load")]
    for file, node in loads:
        if ast.unparse(node.func) == "torch.load":
            options = {one.arg: ast.unparse(one.value) for one in node.keywords}
            assert options.get("weights_only") == "True", file


def test_only_the_importer_of_published_checkpoints_knows_pickle(root: Path) -> None:
    paths = [*(root / "bm").rglob("*.py"), *(root / "scripts").rglob("*.py")]
    users = [
        str(path.relative_to(root))
        for path in paths
        if re.search(r"^\s*(import|from) (cloud)?pickle", path.read_text(), re.MULTILINE)
    ]
    assert users == [UNPICKLER]


def test_files_are_for_nobody_else_to_write(tmp_path: Path) -> None:
    Cache(tmp_path / "cache").entry(
        "a", {"b": 1}, lambda folder: (folder / "c").write_text("") and None
    )
    write_checkpoint(tmp_path / "checkpoint.th", {"history": []})
    written = list(tmp_path.rglob("*"))
    assert len(written) > 4
    assert not [path for path in written if path.stat().st_mode & stat.S_IWOTH]


def test_a_token_is_in_no_log_and_no_command_line(
    root: Path, tmp_path: Path, python_env: dict[str, str]
) -> None:
    """The download fails, as there is no server: with all it has to say, the token isn't said."""
    secret = "s3cret-token-of-someone"
    twice = "from bm.studies.downloads import client; client.N_TRIES = 2"  # waits are long
    download = "import sys; from scripts.download import main; sys.exit(main(sys.argv[1:]))"
    command = [
        sys.executable, "-c", f"{twice}; {download}", "gwilliams2022", f"path={tmp_path}",
        "server.osf=http://127.0.0.1:9/v2",
    ]  # fmt: skip
    env = {**python_env, "OSF_TOKEN": secret, "DRYAD_TOKEN": secret, "DONDERS_PASSWORD": secret}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode != 0
    assert re.search(r"127\.0\.0\.1.*, 2 times\.", done.stderr)
    assert secret not in done.stderr + done.stdout
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_text()
    ]


def test_every_dependency_is_listed_with_its_licence_and_why(root: Path) -> None:
    listed = (root / "docs" / "dependencies.md").read_text()
    pins, _, indirect = (root / "requirements.txt").read_text().partition("# What the above need")
    table = dict(re.findall(r"^\| ([\w.-]+) \| (.+) \|$", listed, re.MULTILINE))
    del table["package"]
    assert set(table) == set(re.findall(r"^([\w.-]+)==", pins, re.MULTILINE))
    for name, row in table.items():
        licence, why = row.split(" | ")
        assert len(licence) > 2, name
        assert len(why) > 2, name
    section = re.search(r"## What these need themselves\n(.*?)\n## ", listed, re.DOTALL)
    assert section is not None
    named = re.findall(r"[\w.-]+", section[1])
    missing = set(re.findall(r"^([\w.-]+)==", indirect, re.MULTILINE)) - set(named)
    assert not missing


@pytest.mark.parametrize("name", ["model", "revision"])
def test_models_of_the_hub_can_be_pinned(root: Path, name: str) -> None:
    text = (root / "conf" / "features_defaults" / "features_defaults.yaml").read_text()
    assert re.search(rf"^\s+{name}:", text, re.MULTILINE)
