"""Durable writes, the cache, digests of content, and CSV without spreadsheet formulas."""

import csv
import errno
import hashlib
import io
import os
from pathlib import Path

import pytest
from folders import as_ordinary_user, names_in, open_folder
from runs import files_no_larger_than, python

from xception_cli import files
from xception_cli.csv_files import from_csv, read_table, read_users_table, to_csv
from xception_cli.errors import ArtifactError, MachineError
from xception_cli.files import (
    cache_folder,
    check_new_file,
    errno_name,
    file_digest,
    require_writable,
    utf8,
    write_durably,
)
from xception_cli.texts import read_lines, read_text


def test_a_file_is_replaced_as_a_whole_and_no_temporary_file_is_left(tmp_path):
    path = tmp_path / "a.bin"
    for content in (b"", b"first", os.urandom(3_000_000), b"short"):
        write_durably(path, content)
        assert path.read_bytes() == content
        assert names_in(tmp_path) == ["a.bin"]


def test_a_file_written_in_parts_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "a.bin"
    write_durably(path, lambda: iter([b"one", b"", b"two"]))
    assert path.read_bytes() == b"onetwo"

    def broken():
        yield b"three"
        raise MemoryError

    with pytest.raises(MemoryError):
        write_durably(path, broken)
    assert path.read_bytes() == b"onetwo"
    assert names_in(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002], ids=oct)
def test_the_mode_of_a_file_follows_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_durably(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    write_durably(path, b"old")
    script = f"""
import resource
from pathlib import Path
from xception_cli.errors import MachineError
from xception_cli.files import write_durably
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
write_durably(Path({str(tmp_path / "small")!r}), b"s" * 10_000)  # the control: this much fits
try:
    write_durably(Path({str(path)!r}), b"n" * 10_001)
except MachineError as error:
    print(error.message, error.hint, error.exit_code, sep="|")
"""
    done = python("-c", script, check=True)
    assert done.stdout.splitlines() == [
        f"cannot write {path} (10,001 bytes): File too large|free some space or choose another "
        "folder; what was saved before is intact|5"
    ]
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.bin", "small"]


def test_a_full_disk_is_reported_as_full(tmp_path, monkeypatch):
    def full(descriptor, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_durably(tmp_path / "a", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(MachineError, match=r"cannot write .*: No space left on device"):
            write_durably(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names_in(tmp_path) == ["a"]


def test_a_transient_error_of_a_network_disk_is_retried_and_a_permanent_one_reported(
    tmp_path, monkeypatch
):
    faults, waits = [], []
    real = os.write

    def flaky(descriptor, content):
        if len(faults) < limit:
            faults.append(1)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, content)

    monkeypatch.setattr("time.sleep", waits.append)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", flaky)
        limit = 2
        write_durably(tmp_path / "a", b"content")
        limit = 5
        with pytest.raises(MachineError, match="Input/output error"):
            write_durably(tmp_path / "a", b"other")
    assert (tmp_path / "a").read_bytes() == b"content"
    assert (len(faults), waits) == (5, [1, 2, 1, 2])
    assert names_in(tmp_path) == ["a"]


def test_a_missing_folder_is_a_machine_error(tmp_path):
    with pytest.raises(MachineError, match="No such file or directory"):
        write_durably(tmp_path / "gone" / "a", b"x")


def test_a_read_only_folder_is_a_machine_error_and_keeps_its_file():
    with open_folder() as folder:
        write_durably(folder / "a", b"old")
        folder.chmod(0o555)
        with as_ordinary_user(), pytest.raises(MachineError, match="Permission denied"):
            write_durably(folder / "a", b"new")
        assert (folder / "a").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["a.csv", "gone/a/b"])
def test_a_place_that_has_the_permissions_but_is_full_is_reported_before_the_work(tmp_path, name):
    def check():
        if name == "a.csv":
            check_new_file(tmp_path / name, (".csv",), "write the ranking to")
        else:
            require_writable(tmp_path / name, f"cannot make {tmp_path / name}")

    check()
    with files_no_larger_than(0), pytest.raises(MachineError) as caught:
        check()
    failed = "write the ranking to" if name == "a.csv" else "make"
    assert caught.value.message == (
        f"cannot {failed} {tmp_path / name}: {tmp_path} is not writable: File too large"
    )
    assert caught.value.hint == "choose another --output"
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"XCEPTION_CACHE": "/a/b", "XDG_CACHE_HOME": "/a"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/a"}, "/a/xception"),
        ({"XDG_CACHE_HOME": "a"}, "/home/somebody/.cache/xception"),
        ({}, "/home/somebody/.cache/xception"),
    ],
    ids=str,
)
def test_the_cache_folder_follows_the_environment(monkeypatch, variables, folder):
    for name in ("XCEPTION_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def test_without_a_home_there_is_no_cache_folder(monkeypatch):
    for name in ("XCEPTION_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MachineError, match="HOME is not set"):
        cache_folder()


def test_the_digest_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1_000_000)
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_an_error_number_has_its_name_and_an_error_without_one_has_none():
    assert errno_name(OSError(errno.ENOSPC, "full")) == "ENOSPC"
    assert errno_name(OSError("no number")) == ""


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("plain.jpg", "plain.jpg"),
        ("crème brûlée 😀", "crème brûlée 😀"),
        (os.fsdecode(b"caf\xe9.jpg"), r"caf\xe9.jpg"),
        (os.fsdecode(b"\xff\xfe"), r"\xff\xfe"),
    ],
)
def test_bytes_that_are_not_utf_8_are_escaped(name, written):
    assert utf8(name) == written
    written.encode()


HOSTILE = [
    "=HYPERLINK(\"http://x\",\"y\")", "+1", "-1", "@x", "\tx", "\rx", "\0x", "'", "''", "'quoted'",
    "'=x", "''=x", "a,b", 'say "hi"', "two\nlines", "two\r\nlines", "one\rother", "\n", "",
    " spaces ", "crème", "😀", "1.5", "日本\u202e", "x" * 10_000, "a;=1+1", "a;b", "a\t=1",
    'a;"=1+1', ";'=1", ";''=1", "a\n=1", "a\r\n-1", ";\t+1", "\uff1d1+1", "a;\uff0b1",
    "a;'b", '"=1"', "\t\t@x",
]  # fmt: skip


def test_hostile_text_survives_a_round_trip_through_csv(tmp_path):
    rows = [[text, text[::-1]] for text in HOSTILE]
    (tmp_path / "a.csv").write_bytes(to_csv(["a", "b"], rows))
    assert list(from_csv(tmp_path / "a.csv", ["a", "b"])) == rows


@pytest.mark.parametrize("separator", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_no_spreadsheet_finds_a_formula_with_any_separator(separator):
    rows = [[text, text, text] for text in HOSTILE]
    made = to_csv(["a", "p:;=1+1", "b"], rows).decode()
    cells = [
        cell
        for row in csv.reader(io.StringIO(made, newline=""), delimiter=separator)
        for cell in row
    ]
    assert [
        cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\uff1d", "\uff0b"))
    ] == []
    plain = "\n".join(f"x,{text}" for text in HOSTILE)  # the control: unescaped, there are some
    split = csv.reader(io.StringIO(plain, newline=""), delimiter=separator)
    assert [cell for row in split for cell in row if cell.startswith("=")]


@pytest.mark.parametrize("separator", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path, separator, encoding):
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=separator).writerows([["a", "b"], ["crème, x; y", "'=1"]])
    assert list(from_csv(path, ["a", "b"])) == [["crème, x; y", "=1"]]


def test_a_table_in_windows_1252_is_read_with_a_note(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_bytes("a;b\ncrème;Süß\n1;€".encode("cp1252"))
    _, rows = read_users_table(path, ["a", "b"].__eq__)
    assert [row for _, row in rows] == [["crème", "Süß"], ["1", "€"]]
    assert capsys.readouterr().err == (
        f'note      {path} is not UTF-8: read as Windows-1252, the encoding of Excel\'s "CSV"\n'
    )
    path.write_bytes(b"a,b\n" + b"1,2\n" * 300_000 + b"1,caf\xe9")  # at the end, after 1 MB
    _, rows = read_users_table(path, ["a", "b"].__eq__)
    assert list(rows)[-1] == (300_002, ["1", "café"])


@pytest.mark.parametrize(
    ("content", "at"),
    [(b"a\n\xc3\xa9\ncaf\xe9\n", 8), (b"a\ncaf\xe9\n\x81\n", 7)],
    ids=["damaged UTF-8", "undefined in Windows-1252"],
)
def test_text_in_neither_utf8_nor_windows_1252_is_refused_with_what_to_do_in_excel(
    tmp_path, content, at
):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    refusal = rf"^byte {at} is not UTF-8; .* \(in Excel: File > Save as > CSV UTF-8\)$"
    with pytest.raises(ValueError, match=refusal):
        list(read_users_table(path, lambda _: True)[1])


def test_lines_above_the_columns_are_skipped_and_counted(tmp_path):
    (tmp_path / "a.csv").write_text("\nsep=;\n;\na;b\n\n1;2\n")  # `sep=;` is for Excel
    columns, rows = read_table(tmp_path / "a.csv", ["a", "b"].__eq__)
    assert (columns, list(rows)) == (["a", "b"], [(6, ["1", "2"])])


@pytest.mark.parametrize("separator", [",", ";"], ids=["comma", "semicolon"])
@pytest.mark.parametrize("row", ['"2,x', '"2"x,y'], ids=["never closed", "text after it"])
def test_a_wrong_quote_is_refused_with_its_line_and_swallows_no_row(tmp_path, separator, row):
    def write(row):
        text = f'"a","b"\n1,2\n{row}\n3,"4 5"\n6,7\n'
        (tmp_path / "a.csv").write_text(text.replace(",", separator))

    write(row)
    with pytest.raises(
        ArtifactError, match=r'not a CSV file: line 3 has a quote \("\) in the wrong'
    ):
        list(from_csv(tmp_path / "a.csv", ["a", "b"]))
    write('2,"x"')
    assert list(from_csv(tmp_path / "a.csv", ["a", "b"]))[1:3] == [["2", "x"], ["3", "4 5"]]


@pytest.mark.parametrize("cell", ["x" * 200_000, '"x' + "\nb,1" * 50_000])
def test_a_cell_that_is_too_long_is_not_called_only_a_quote_in_the_wrong_place(tmp_path, cell):
    path = tmp_path / "t.csv"
    path.write_text(f"path,note\na,\nb,{cell}\n")
    _, rows = read_table(path, {"path", "note"}.issubset)
    assert next(rows) == (2, ["a", ""])
    with pytest.raises(ValueError, match=r"line 3 has a cell over 131,072 characters, or an un"):
        next(rows)


def test_a_row_of_another_length_and_text_in_an_old_encoding_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(ArtifactError, match="line 3 has 1 cell, expected 2"):
        list(from_csv(tmp_path / "a.csv", ["a", "b"]))
    (tmp_path / "a.csv").write_bytes("a,b\ncr\xe8me,2\n".encode("latin-1"))
    with pytest.raises(ArtifactError, match="byte 6 is not UTF-8; save the file as UTF-8"):
        list(from_csv(tmp_path / "a.csv", ["a", "b"]))


def test_no_cell_of_a_csv_file_begins_as_a_formula_and_each_row_is_one_row(tmp_path):
    (tmp_path / "a.csv").write_bytes(to_csv(["a", "b"], [[text, "end"] for text in HOSTILE]))
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    assert [row[1] for row in rows] == ["end"] * len(HOSTILE)
    assert [row[0] for row in rows if row[0][:1] in tuple("=+-@\t\r\0")] == []
    assert rows[0][0] == "'" + HOSTILE[0]
    assert [row[0] for row in rows[12:14]] == HOSTILE[12:14]  # harmless text is unchanged


def test_the_bytes_of_a_csv_file():
    rows = [[1, -2, 0.1234567, -1e-9, 1e20, float("nan")], [None, True, "é", "-x", "a,b", 2.0]]
    assert to_csv(["a", "b", "c", "d", "e", "f"], rows) == (
        b'a,b,c,d,e,f\n1,-2,0.123457,-1e-09,1e+20,nan\n,True,\xc3\xa9,\'-x,"a,b",2\n'
    )


def test_a_csv_file_without_rows_is_its_header(tmp_path):
    (tmp_path / "a.csv").write_bytes(to_csv(["a", "b"], []))
    assert (tmp_path / "a.csv").read_bytes() == b"a,b\n"
    assert list(from_csv(tmp_path / "a.csv", ["a", "b"])) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"a,c\n1,2\n", b"b,a\n1,2\n", b"a,b\n1\n", b"a,b\n1,2,3\n", b"a,b\n\xff,2\n", b'a,b\n"' +
     b"x" * 200_000 + b'",2\n'],
    ids=["empty", "another column", "another order", "too short", "too long", "not UTF-8", "huge"],
)  # fmt: skip
def test_a_file_that_we_did_not_write_is_refused(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"a\.csv"):
        list(from_csv(tmp_path / "a.csv", ["a", "b"]))


def test_a_missing_csv_file_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"cannot read .*a\.csv"):
        list(from_csv(tmp_path / "a.csv", ["a"]))


def test_a_csv_file_is_read_row_by_row_up_to_the_expected_number_of_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(to_csv(["a", "b"], [["1", "x" * 30], ["2", "y"]]))
    assert len(list(from_csv(path, ["a", "b"], most=2))) == 2
    rows = from_csv(path, ["a", "b"], most=1)
    assert next(rows) == ["1", "x" * 30]
    with pytest.raises(ArtifactError, match=r"a\.csv has over 1 row, more than expected"):
        next(rows)
    assert len(list(read_lines(path, 33))) == 3
    with pytest.raises(ValueError, match="line 2 has over 32 characters"):
        list(read_lines(path, 32))


@pytest.mark.parametrize(
    ("read", "rows"),
    [
        (read_text, 30_000),
        (lambda path: list(read_lines(path)), 300_000),  # more than is read at a time
    ],
    ids=["text", "lines"],
)
def test_text_that_is_not_utf8_is_named_by_its_byte_wherever_it_is(tmp_path, read, rows):
    path = tmp_path / "a.csv"
    start = b"a,b\n" + b"1,2\n" * rows
    for end in (b"\xff,2\n", b"1,\xc3"):
        path.write_bytes(start + end)
        at = len(start) + end.index(max(end))
        with pytest.raises(ValueError, match=f"byte {at:,} is not UTF-8; save the file as"):
            read(path)


def test_csv_functions_can_still_be_imported_from_where_version_0_2_had_them():
    assert (files.to_csv, files.from_csv) == (to_csv, from_csv)
    with pytest.raises(AttributeError, match=r"'xception_cli\.files' has no attribute 'from_tsv'"):
        files.from_tsv  # noqa: B018
