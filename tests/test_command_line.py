"""What both programs share: the order of words does not matter, and a wrong flag is told with the nearest right one."""

from __future__ import annotations

import pytest

from ares_eval.command_line import Parser


def parser() -> Parser:
    made = Parser(prog="p", allow_abbrev=False)
    made.add_argument("--dry-run", action="store_true")
    made.add_argument("--config")
    made.add_argument("settings", nargs="*")
    return made


@pytest.mark.parametrize(
    "words", [["a=1", "b=2", "--config", "c", "--dry-run"], ["--config", "c", "a=1", "--dry-run", "b=2"]]
)
def test_words_without_a_flag_may_stand_before_between_and_after_flags(words: list[str]) -> None:
    found = parser().parse(words)
    assert (found.settings, found.config, found.dry_run) == (["a=1", "b=2"], "c", True)


def test_a_wrong_flag_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parser().parse(["a=1", "--dry-rum", "b=2"])
    assert stopped.value.code == 2
    assert "p: unknown argument '--dry-rum'; did you mean --dry-run?" in capsys.readouterr().err


def test_a_parser_with_commands_of_its_own_is_left_alone() -> None:
    made = Parser(prog="p")
    made.add_subparsers(dest="what").add_parser("save").add_argument("name")
    assert vars(made.parse(["save", "x"])) == {"what": "save", "name": "x"}
