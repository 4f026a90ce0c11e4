"""Untrusted text made safe; the two streams and the log."""

import io
import os
import re
import sys
import time
from pathlib import Path

import pytest

from xception_cli import console
from xception_cli.console import Screen, emit, fail, is_interactive, new_table, safe, show
from xception_cli.numerals import about, duration

MARKUP = [":smile:.jpg", "[red]a[/blue].jpg", "[/].jpg", "[bold]x.jpg", "[link=http://x]y[/link]"]
STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ?")


def logged(path: Path) -> list[str]:
    """The log's lines without their times."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(STAMP.match(line) for line in lines)
    return [STAMP.sub("", line) for line in lines]


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def attach_terminal(monkeypatch) -> Terminal:
    """Make stderr a terminal. Not a fixture: pytest replaces stderr between setup and call."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "FORCE_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    return stream


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本 😀", "plain é 日本 😀"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x1b]52;c;Zm9v\x1b\\", "\\x1b]52;c;Zm9v\\x1b\\"),
        ("\x9b31m", r"\x9b31m"),
        ("\x7f\x00\t\r", r"\x7f\x00\x09\x0d"),
        ("a\nb", r"a\x0ab"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("a\u2028b\u2029c\u200bd\ufeff", r"a\u2028b\u2029c\u200bd\ufeff"),
        ("\ue000\u0378", r"\ue000\u0378"),
        (os.fsdecode(b"caf\xe9\x1b.jpg"), r"caf\xe9\x1b.jpg"),
        ("\ud800", r"\ud800"),
        (Path("a/b"), "a/b"),
        (None, "None"),
        ("", ""),
    ],
    ids=repr,
)
def test_untrusted_text_is_shown_without_terminal_control_characters(text, shown):
    assert show(text) == shown
    assert safe(text) == shown.replace(r"\x0a", "\n")


def test_every_character_is_safe_to_show():
    for start in range(0, 0x110000, 200):
        text = "".join(map(chr, range(start, min(start + 200, 0x110000))))
        shown = safe(text)
        shown.encode()  # no lone surrogate remains
        assert re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e]", shown) is None


def test_a_name_of_a_megabyte_is_visibly_cut():
    started = time.monotonic()
    assert show("x" * 1_000_000) == "x" * 200 + "…"
    assert time.monotonic() - started < 5
    assert show("x" * 200) == "x" * 200


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (45.4, "45 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (190, "3 min 10 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (7199, "1 h 59 min"),
        (360_000, "100 h 0 min"),
    ],
)
def test_a_duration_is_shown_in_the_two_largest_units(seconds, shown):
    assert duration(seconds) == shown


def test_an_expected_duration_is_round():
    expected = {
        6.6: "7 s", 36: "40 s", 57: "1 min", 160: "3 min", 176: "3 min", 3500: "58 min",
        3590: "1 h 0 min", 7600: "2 h 10 min",
    }  # fmt: skip
    assert {seconds: about(seconds) for seconds in expected} == expected


def test_messages_go_to_stderr_and_never_to_stdout(capsys):
    screen = Screen()
    screen.say("one")
    screen.say("two", style="bold red")
    fail("three", "four")
    out, err = capsys.readouterr()
    assert out == ""
    lines = ["one", "two", "error: three", "hint: four"]
    assert err.splitlines() == lines


@pytest.mark.parametrize("name", MARKUP)
def test_markup_and_emoji_codes_in_a_name_are_printed_literally(capsys, tmp_path, name):
    table = new_table(name, title=name)
    table.add_row(name)
    screen = Screen()
    screen.log_to(tmp_path / "log")
    screen.say(name, style="bold")
    emit(name)
    emit(table)
    out, err = capsys.readouterr()
    assert [line.strip() for line in err.splitlines()] == [name]
    assert [line.strip() for line in out.splitlines()] == [name] * 4
    assert [line.strip() for line in logged(tmp_path / "log")] == [name]


def test_escapes_reach_neither_the_terminal_nor_the_log(tmp_path, monkeypatch):
    terminal = attach_terminal(monkeypatch)
    screen = Screen()
    screen.log_to(tmp_path / "log")
    screen.say("\x1b[2J\x1b]52;c;x\x07\x9b1m\r\u202e" + os.fsdecode(b"\xe9"))
    expected = r"\x1b[2J\x1b]52;c;x\x07\x9b1m\x0d\u202e\xe9"
    assert terminal.getvalue() == expected + "\n"
    assert logged(tmp_path / "log") == [expected]


def test_colour_is_on_the_terminal_and_never_in_the_log(tmp_path, monkeypatch):
    terminal = attach_terminal(monkeypatch)
    monkeypatch.setenv("FORCE_COLOR", "1")
    screen = Screen()
    screen.log_to(tmp_path / "log")
    screen.say("bad", style="bold red")
    assert "\x1b[" in terminal.getvalue()  # the control: this terminal has colour
    assert "\x1b" not in (tmp_path / "log").read_text()
    assert logged(tmp_path / "log") == ["bad"]


def test_a_piped_message_is_not_wrapped(capsys):
    line = "word " * 100
    Screen().say(line.strip())
    assert capsys.readouterr().err == line.strip() + "\n"


def test_on_a_terminal_a_message_is_wrapped_below_its_text(monkeypatch):
    terminal = attach_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "44")
    phases = "features 1 min 20 s, fine-tuning 1 min 31 s, report 2 s"
    name, command = "long" * 12, "xception train /folder/with/a/long/name --epochs 3"
    Screen().say(f"expected  3 min 0 s: {phases}\n  {name}", style="bold")
    Screen().say(f"next: {command}")
    fail("four files cannot be read, and are left out of it", None)
    assert re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue()).splitlines() == [
        "expected  3 min 0 s: features 1 min 20 s,",
        "          fine-tuning 1 min 31 s, report 2 s",
        f"  {name}",  # a word stays whole
        f"next: {command}",  # and a command
        "error: four files cannot be read, and are",
        "       left out of it",
    ]


def test_the_log_has_earlier_messages(tmp_path, capsys):
    screen = Screen()
    screen.say("before")
    screen.say("only logged", log_only=True)
    screen.log_to(tmp_path / "log")
    screen.say("after")
    screen.log_to(None)
    screen.say("too late")
    assert logged(tmp_path / "log") == ["before", "only logged", "after"]
    assert capsys.readouterr().err == "before\nafter\ntoo late\n"


def test_a_second_log_has_only_later_messages(tmp_path):
    screen = Screen()
    screen.log_to(tmp_path / "first")
    screen.say("one")
    screen.log_to(tmp_path / "second")
    screen.say("two")
    assert logged(tmp_path / "first") == ["one"]
    assert logged(tmp_path / "second") == ["two"]


def test_a_log_is_appended_to(tmp_path):
    for _ in range(2):
        screen = Screen()
        screen.log_to(tmp_path / "log")
        screen.say("line")
    assert logged(tmp_path / "log") == ["line", "line"]


def test_a_log_that_cannot_be_written_is_no_error(tmp_path, capsys):
    screen = Screen()
    screen.log_to(tmp_path / "gone" / "log")
    screen.say("one")
    screen.say("two")
    assert capsys.readouterr().err == "one\ntwo\n"


def test_a_quiet_screen_only_logs(tmp_path, capsys):
    screen = Screen()
    screen.quiet = True
    screen.log_to(tmp_path / "log")
    screen.say("said")
    with screen.bar("phase", 10) as bar:
        bar.advance(10)
    assert capsys.readouterr() == ("", "")
    assert logged(tmp_path / "log") == ["said"]


@pytest.mark.parametrize(
    ("name", "value"), [("TERM", "dumb"), ("CI", "true"), ("NO_COLOR", "1")], ids=str
)
def test_bars_move_only_on_a_capable_terminal(monkeypatch, name, value):
    attach_terminal(monkeypatch)
    assert is_interactive()
    monkeypatch.setenv(name, value)
    assert not is_interactive()


def test_bars_do_not_move_in_a_pipe(capsys):
    assert not is_interactive()


def test_a_quick_phase_in_a_pipe_prints_nothing(capsys, tmp_path):
    screen = Screen()
    screen.log_to(tmp_path / "log")
    with screen.bar("phase", 100) as bar:
        for _ in range(100):
            bar.advance(1, "note")
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "log").exists()


def test_a_long_phase_in_a_pipe_gives_a_line_every_thirty_seconds(capsys, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with Screen().bar("reading", 100) as bar, Screen().bar("x", 9, heartbeat=False) as silent:
        for _ in range(7):
            now[0] += 10
            bar.advance(5, "loss 0.5")
            silent.advance(1)
    assert capsys.readouterr().err.splitlines() == [
        "reading: 15 of 100, 0.5 images/s, 2 min 50 s left  loss 0.5",
        "reading: 30 of 100, 0.5 images/s, 2 min 20 s left  loss 0.5",
    ]


def test_the_speed_after_a_restart_counts_only_later_units(capsys, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with Screen().bar("epoch 1", 1000) as bar:
        now[0] += 20
        bar.restart("epoch 2", 600)
        now[0] += 20
        bar.advance(20)
        now[0] += 20
        bar.advance(20)
    assert capsys.readouterr().err == "epoch 2: 640 of 1,000, 1.0 images/s, 6 min 0 s left\n"


def test_a_bar_with_a_long_name_stays_on_one_line_of_80_columns(monkeypatch):
    stream = attach_terminal(monkeypatch)
    screen = Screen()
    with screen.bar("computing features (train, view 1 of 1)", 1296) as bar:
        for _ in range(3):
            time.sleep(0.01)
            bar.advance(104)
        screen._progress.refresh()
        frame = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", stream.getvalue().rpartition("\r")[2])
    assert "312/1296" in frame
    assert re.search(r"\d images/s +\S", frame)
    assert "\n" not in frame.strip()


def test_a_bar_on_a_terminal_disappears_and_does_not_hide_messages(capsys, monkeypatch):
    terminal = attach_terminal(monkeypatch)
    screen = Screen()
    with screen.bar("outer", 4) as outer:
        with screen.bar("inner", 2) as inner:
            inner.advance(2, "note")
        outer.advance(4)
        screen.say("[red]said[/]")
        emit("data")
    screen.say("after")
    drawn = terminal.getvalue()
    assert "outer" in drawn
    assert "inner" in drawn
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", drawn).splitlines()
    assert plain[-1] == "after"
    assert "\x1b[2K[red]said[/]\n" in drawn
    assert capsys.readouterr().out == "data\n"  # data is not mixed with the bar


def test_a_phase_without_units_shows_no_bar(monkeypatch):
    terminal = attach_terminal(monkeypatch)
    screen = Screen()
    for total in (0, 1):
        assert terminal.getvalue() == ""
        with screen.bar("comparing", total) as bar:
            bar.advance(0)
    assert "comparing" in terminal.getvalue()  # the control


def test_the_screen_is_usable_after_an_error_inside_a_bar(monkeypatch):
    attach_terminal(monkeypatch)
    screen = Screen()
    with screen.bar("outer", 2) as outer:
        with pytest.raises(KeyError), screen.bar("inner", 2):
            raise KeyError
        outer.advance(1)
        assert [task.description for task in screen._progress.tasks] == ["outer"]
    with pytest.raises(KeyError), screen.bar("again", 2):
        raise KeyError
    assert screen._progress is None


def test_a_path_that_is_not_utf_8_can_be_printed(capsys):
    emit(os.fsdecode(b"caf\xe9"))
    assert capsys.readouterr().out == "caf\\xe9\n"


def test_names_wrap_in_a_narrow_table_and_numbers_stay_whole(capsys):
    table = new_table("name", ">n")
    table.add_row("x" * 400, "123456")
    emit(table)
    lines = capsys.readouterr().out.splitlines()
    assert "".join(line[:194].strip() for line in lines[1:]).count("x") == 400
    assert lines[1].endswith("123456")
