"""What a command may import: the common verbs start in a few milliseconds because they import next to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
EXPENSIVE = {
    "argparse", "ast", "asyncio", "collections", "contextlib", "dataclasses", "datetime", "enum", "functools", "gettext", "hashlib",
    "http", "inspect", "json", "locale", "logging", "pathlib", "random", "re", "selectors", "shutil", "signal", "socket",
    "ssl", "string", "struct", "subprocess", "tempfile", "textwrap", "threading", "types", "typing", "urllib", "weakref",
}  # fmt: skip
COMMON = {"errors", "flags", "registry", "context", "main"}
PROGRAM = """
import sys
sys.path.append({root!r})
from bothy.cli.main import main
code = main({argv!r})
sys.stderr.write(" ".join(sorted(sys.modules)) + "\\n" + str(code))
"""


def modules(argv: list[str], run: Path) -> set[str]:
    """The modules that are loaded after a command line was run with an engine that can not be reached."""
    program = PROGRAM.format(root=str(ROOT), argv=["-H", f"unix://{run}/none.sock", *argv])
    done = subprocess.run([sys.executable, "-IS", "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded, _ = done.stderr.splitlines()[-2:]
    return set(loaded.split())


@pytest.mark.parametrize(
    "argv",
    [
        ["ps", "-a"],
        ["run", "-it", "--rm", "-p", "80:80", "-v", "/a:/b", "busybox"],
        ["exec", "web", "true"],
        ["start", "web"],
        ["stop", "-t", "1", "web"],
        ["rm", "-f", "web"],
        ["logs", "web"],
        ["images"],
        ["wait", "web"],
        ["kill", "-s", "HUP", "web"],
    ],
    ids=lambda argv: argv[0],
)
def test_common_verbs_import_little(argv: list[str], tmp_path: Path) -> None:
    loaded = modules([word for word in argv if word != "-it"], tmp_path)
    assert not loaded & EXPENSIVE


def test_only_the_verb_s_module_is_imported(tmp_path: Path) -> None:
    loaded = {name.removeprefix("bothy.cli.") for name in modules(["ps"], tmp_path) if name.startswith("bothy.cli.")}
    assert loaded == {*COMMON, "ps", "tables"}


def test_the_command_line_imports_nothing_of_the_engine(tmp_path: Path) -> None:
    loaded = {
        name for name in modules(["run", "busybox"], tmp_path) if name.startswith("bothy.") and not name.startswith("bothy.cli")
    }
    assert loaded == {"bothy.api", "bothy.api.client", "bothy.errors", "bothy.quickjson"}
