"""All scripts behave alike: help, exit codes, one message for what users can mend."""

import logging

import pytest

from bm.core.messages import DataError
from scripts.arguments import UsageError
from scripts.command import command

DOC = "Do something.\n\nUsage: python -m scripts.something"


def script(error=None, **options):
    """A script's main, which ends with an error if there is one."""

    @command(DOC, **options)
    def main(arguments):
        if error:
            raise error
        return 3

    return main


@pytest.mark.parametrize("argument", ["-h", "--help", "help"])
def test_help_is_the_docstring(argument, capsys):
    assert script()(["other=1", argument]) == 0
    assert capsys.readouterr().out.strip() == DOC


def test_nothing_to_do_is_an_error_unless_there_are_defaults(capsys):
    assert script()([]) == 2
    assert DOC in capsys.readouterr().out
    assert script(needs_arguments=False)([]) == 3


@pytest.mark.parametrize(
    ("error", "code", "is_helped"),
    [
        (UsageError("wrong key"), 2, True),
        (ValueError("wrong value"), 2, True),
        (DataError("wrong file"), 1, False),
        (PermissionError("not yours"), 1, False),
        (KeyboardInterrupt("Interrupted"), 130, False),
    ],
)
def test_user_errors_are_one_message_and_a_code(error, code, is_helped, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    assert script(error)(["key=1"]) == code
    printed = capsys.readouterr().err
    assert str(error) in printed
    assert "Traceback" not in printed
    assert ("python -m scripts.something --help" in printed) == is_helped
    if code != 130:  # whoever looks for a fault of ours finds it in the log
        assert caplog.records[-1].exc_info[1] is error


def test_a_fault_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        script(ZeroDivisionError())(["key=1"])


def test_help_must_say_how_to_call():
    with pytest.raises(ValueError, match="how to call it"):
        command("Do something.")
