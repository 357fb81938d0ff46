"""Code blocks of the pages: commands and options exist, data can be read, links lead somewhere.

Here every command is checked as far as that goes without running it. Code is run by
`test_docs_run.py`, or by the test of its page (`RUN_BY`).
"""

import importlib
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from doc_blocks import PAGES, ROOT, RUN_BY, SHELL, Block, blocks_of, commands_of, is_shell

from bm.config import UNSUPPORTED, default_leaves, from_hydra
from bm.train import main as experiment
from scripts import run_grid
from scripts.arguments import UsageError
from scripts.options import divide

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
OTHERS = ("source", "export", "pip", "globus", "sudo", "jupyter", "hf")
"""Commands that aren't ours."""
POSITIONAL = {"import_published": 2, "download": 1, "check_study": 1, "run_grid": 1}
"""Arguments without a key that scripts take."""


COMMANDS = [
    pytest.param(command, id=f"{block.page}: {' '.join(command)[:60]}")
    for block in BLOCKS
    if is_shell(block)
    for command in commands_of(block)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_a_page_exists_with_its_options(command, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = [word for word in command if not re.fullmatch(r"[A-Z_]+=\S*", word)]  # VARIABLE=value
    if words[0] == "dora":
        check_dora(words[1:])
    elif words[:2] == ["python", "-m"] and words[2].startswith("scripts."):
        check_script(words[2].removeprefix("scripts."), words[3:])
    elif words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
    elif words[0] == "python":
        assert words[1] in ("make_data.py", "make_listeners.py")  # of the page itself
    else:
        assert words[0] in OTHERS, f"An unknown command: {words[0]}"


def check_dora(words: list[str]) -> None:
    """``dora run`` with its overrides, or ``dora grid`` of a grid that exists."""
    action, *rest = words
    if action == "run":
        flags = [word.partition("=")[0] for word in rest if word.startswith("-")]
        assert set(flags) <= {"-f", "-d", "--clear", "--ddp_workers"}
        overrides = [word for word in rest if "=" in word and not word.startswith("-")]
        files = [word for word in overrides if word.partition("=")[0] == "selections"]
        from_hydra(experiment.get_xp([one for one in overrides if one not in files]).cfg)
    elif action in ("grid", "info"):
        names = [word for word in rest if not word.startswith("-") and "=" not in word]
        if action == "grid":
            importlib.import_module(f"bm.grids.{names[0]}")
    else:
        pytest.fail(f"dora {action}?")


def check_script(name: str, words: list[str]) -> None:
    """A script whose options exist, and are of the right type."""
    module = importlib.import_module(f"scripts.{name}")
    assert callable(module.main)
    keyed = [word for word in words if "=" in word.lstrip("+")]
    free = [word for word in words if word not in keyed and word != "--help"]
    if name == "benchmark":
        options = [word for word in keyed if not word.startswith("json=")]
        module.read_settings(module.choose(free), dict(word.split("=", 1) for word in options))
        return
    assert len(free) <= POSITIONAL.get(name, 0), free
    if name == "download":
        module.read_options([*free, *keyed])
    elif name == "run_grid":
        run_grid.read(keyed)
    elif name == "import_published":
        from_hydra(experiment.get_xp(keyed).cfg)
    elif name == "audit" and keyed[0].startswith("sig="):
        assert len(keyed) == 1
    elif hasattr(module, "Options"):
        values, overrides = divide(module.Options, keyed)
        from_hydra(experiment.get_xp(overrides).cfg)
        if not overrides:
            module.Options(**values)
    else:
        assert not keyed or name in ("demo", "ablation_table")


def test_wrong_options_would_be_noticed():
    for command in ("predict checkpoint=a raw=b sound=c", "prepare selections=[a] optim.lrr=3"):
        name, *words = command.split()
        with pytest.raises((UsageError, ValueError)):
            check_script(name, words)
    with pytest.raises(ValueError, match="lrr"):
        check_dora(["run", "optim.lrr=3"])


@pytest.mark.parametrize("page", RUN_BY)
def test_page_has_a_test_of_its_own(page):
    assert page in (ROOT / "tests" / RUN_BY[page]).read_text()


def test_data_in_pages_can_be_read():
    readers = {"yaml": yaml.safe_load, "toml": tomllib.loads, "json": json.loads}
    known = {"", "python", "tsv", *SHELL, *readers}
    for block in BLOCKS:
        assert block.language in known, block
        if block.language in readers:
            assert readers[block.language](block.text)


def anchors_of(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            assert re.fullmatch(r"https?://[\w.-]+\.[a-z]+(/[^\s]*)?", target), target
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors_of(file), target


def test_every_page_is_reached_from_the_readme():
    """Directly, or through a page that is."""
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)[^)]*\)", page.read_text(encoding="utf-8"))
        waiting += [(page.parent / link).resolve() for link in links]
    assert reached >= set(PAGES)


def keys_of(section: str) -> list[str]:
    """Keys in the first column of a table of the page for those who know the published code."""
    page = (ROOT / "docs" / "from-published.md").read_text(encoding="utf-8")
    table = page.partition(f"## {section}")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    return [key for cell in cells for key in re.findall(r"`([\w.]+)`", cell)]


def test_page_for_those_who_know_the_published_code_names_the_keys_that_raise():
    assert sorted(keys_of("Keys that raise")) == sorted(UNSUPPORTED)


def test_keys_that_work_now_exist_and_are_not_refused():
    keys = keys_of("Keys that work now")
    assert len(keys) == 9
    assert set(keys) <= default_leaves().keys() - UNSUPPORTED.keys()


def test_glossary_is_in_alphabetical_order():
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^\*\*([\w ]+)\*\*", page, re.MULTILINE)
    assert len(terms) > 30
    assert terms == sorted(terms, key=str.lower)


SCRIPTS = sorted(
    path.stem for path in (ROOT / "scripts").glob("*.py") if "__main__" in path.read_text()
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_has_help_with_examples_that_work(name, capsys):
    module = importlib.import_module(f"scripts.{name}")
    assert module.main(["--help"]) == 0
    printed = capsys.readouterr()
    assert f"Usage: python -m scripts.{name}" in printed.out
    assert "Exit code: 0" in printed.out
    assert not printed.err
    examples = printed.out.partition("For example:\n")[2].partition("\n\n")[0]
    block = Block(name, "bash", examples)
    found = [words for words in commands_of(block) if words[:2] == ["python", "-m"]]
    assert found
    for words in found:
        check_script(words[2].removeprefix("scripts."), words[3:])
