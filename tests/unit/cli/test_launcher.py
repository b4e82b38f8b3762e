"""The launcher, and the completion scripts as their shells understand them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bothy import __version__
from bothy.cli import completion, launcher

BASH = shutil.which("bash") or ""


def test_the_launcher_runs_anywhere_and_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = Path(launcher.install(str(tmp_path)))
    again = Path(launcher.install(str(tmp_path)))
    assert path == again == tmp_path / "bothy"
    assert [p.name for p in tmp_path.iterdir()] == ["bothy"]
    assert path.stat().st_mode & 0o777 == 0o755
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, cwd="/", env={}, timeout=60)
    assert (done.stdout, done.stderr) == (f"bothy version {__version__}\n", "")


def test_the_environment_does_not_change_what_is_imported(tmp_path: Path) -> None:
    (tmp_path / "bothy").mkdir()
    (tmp_path / "os.py").write_text("raise SystemExit('taken over')")
    path = launcher.install(str(tmp_path / "bothy"))
    environ = {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "os.py")}
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path, env=environ, timeout=60)
    assert done.stdout == f"bothy version {__version__}\n"


def test_a_path_that_no_shebang_can_have(tmp_path: Path) -> None:
    folder = tmp_path / "a folder with 'quotes'"
    folder.mkdir()
    python = folder / "python"
    python.symlink_to(sys.executable)
    path = tmp_path / "bothy"
    path.write_text(launcher.script(str(python), launcher.package_root()))
    path.chmod(0o755)
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"bothy version {__version__}\n"


def test_a_folder_that_can_not_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launcher.main(["install", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("bothy: can not write a launcher into")
    assert launcher.main(["what"]) == 2


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "bothy.bash"
    path.write_text(completion.bash())
    return path


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words; a `bothy` that lists two names stands in for the engine."""
    program = (
        'source "$1"; shift; bothy() { case "$1 $2" in "ps "*) printf "web\\ndb\\n";; "images "*) printf "busybox:latest\\n";; esac; }; '
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _bothy; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environ = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [BASH, "-c", program, "bash", script, "bothy", *words], capture_output=True, text=True, check=True, env=environ, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_verbs(script: Path) -> None:
    assert "run" in completed(script, "")
    assert completed(script, "unp") == ["unpause"]
    assert completed(script, "image", "boot") == ["bootstrap"]
    assert completed(script, "machine", "") == ["template"]
    assert set(completed(script, "machine", "template", "")) >= {"ls", "rm", "prune"}


def test_bash_completes_flags_and_their_values(script: Path) -> None:
    assert completed(script, "run", "--secu") == ["--security-opt"]
    assert completed(script, "run", "--pull", "m") == ["missing"]
    assert "--help" in completed(script, "ps", "--")


def test_bash_completes_names(script: Path) -> None:
    assert completed(script, "rm", "-f", "w") == ["web"]
    assert completed(script, "stop", "-t", "5", "") == ["web", "db"]
    assert completed(script, "run", "--name", "x", "busy") == ["busybox:latest"]


def test_the_other_scripts_name_every_verb() -> None:
    for text in (completion.zsh(), completion.fish()):
        assert "bootstrap" in text
        assert "--security-opt" in text or "-l security-opt" in text
