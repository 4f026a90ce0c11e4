"""What Windows lacks is not needed: as far as that can be seen without Windows."""

import errno
import os
from pathlib import Path

import pytest
from images import two_classes
from runs import python

from xception_cli.commands.options import separate_run
from xception_cli.regular import open_regular

EVERY_MODULE = """
import importlib, pkgutil, sys
import xception_cli
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None  # importing it is an ImportError
for module in pkgutil.walk_packages(xception_cli.__path__, "xception_cli."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from xception_cli.cli import main
for arguments in (["check", "pets"], ["predict", "pets/cat/1.jpg", "--model", "no.safetensors"]):
    try:
        main(arguments)
    except SystemExit as end:
        print(end.code)
"""


@pytest.mark.slow
def test_every_module_is_imported_and_check_runs_without_what_only_posix_has(tmp_path: Path):
    two_classes(tmp_path / "pets", 12)
    done = python("-c", EVERY_MODULE, cwd=tmp_path, check=True)
    assert [line for line in done.stdout.splitlines() if line.isdigit()] == ["0", "2"], done.stderr
    assert "24 images, 2 classes" in done.stdout
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_link_is_not_followed_where_the_system_cannot_refuse_it(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    monkeypatch.delattr(os, "O_NOFOLLOW")
    with pytest.raises(OSError, match="it is a link"):
        open_regular(tmp_path / "link")
    os.close(open_regular(tmp_path / "link", follow=True))


def test_a_pattern_of_images_is_no_run_which_windows_reports_as_an_invalid_name(monkeypatch):
    def stat(path: Path) -> None:
        raise OSError(errno.EINVAL, "The filename is incorrect", str(path))

    monkeypatch.setattr(Path, "stat", stat)
    assert separate_run(["photos/*.jpg"], None, None) == (["photos/*.jpg"], None)
