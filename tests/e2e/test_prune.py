"""container, image and volume prune: what their filters spare, and filters that there are not."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from bothy.api.client import Client
from bothy.errors import Invalid
from tests.support.engine import TestEngine


def imported(engine: TestEngine, folder: Path, number: int, *label: str) -> str:
    """The id of an image without a name, of its own content."""
    with tarfile.open(folder / f"{number}.tar", "w") as tar:
        info = tarfile.TarInfo(f"file-{number}")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"data"))
    changes = [word for text in label for word in ("-c", f"LABEL {text}")]
    return engine("import", *changes, str(folder / f"{number}.tar")).ok().line


def ids(engine: TestEngine) -> set[str]:
    return set(engine("images", "-aq", "--no-trunc").ok().out.split())


def test_images(settled: TestEngine, tmp_path: Path) -> None:
    settled("image", "prune", "-f").ok()
    before = ids(settled)
    plain, kept, one = (
        imported(settled, tmp_path, 1),
        imported(settled, tmp_path, 2, "keep=1"),
        imported(settled, tmp_path, 3, "a=1"),
    )
    settled("tag", one, "t/one").ok()
    settled("image", "prune", "-f", "--filter", "until=2020-01-01").ok()
    settled("image", "prune", "-f", "--filter", "until=1h").ok()
    settled("image", "prune", "-f", "--filter", "label=keep=2").ok()
    assert ids(settled) == before | {plain, kept, one}
    assert plain in settled("image", "prune", "-f", "--filter", "label!=keep").ok().out
    assert ids(settled) == before | {kept, one}
    settled("image", "prune", "-af", "--filter", "label=a").ok()
    assert ids(settled) == before | {kept}
    settled("image", "prune", "-f", "--filter", "label=keep=1", "--filter", "until=0.001s").ok()
    assert ids(settled) == before


def test_containers(settled: TestEngine) -> None:
    for name, *flags in (("t-plain",), ("t-kept", "--label", "keep=1"), ("t-both", "--label", "keep=1", "--label", "b=2")):
        settled("create", "--name", name, *flags, "busybox", "true").ok()
    settled("container", "prune", "-f", "--filter", "until=1h").ok()
    settled("container", "prune", "-f", "--filter", "label=nobody").ok()
    assert len(settled("ps", "-aq").out.split()) == 3
    settled("container", "prune", "-f", "--filter", "label!=keep").ok()
    assert set(settled("ps", "-a", "--format", "{{.Names}}").out.split()) == {"t-kept", "t-both"}
    settled("container", "prune", "-f", "--filter", "label=keep", "--filter", "label=b=2").ok()
    assert settled("ps", "-a", "--format", "{{.Names}}").out.split() == ["t-kept"]
    settled("container", "prune", "-f", "--filter", "until=0.001s").ok()
    assert not settled("ps", "-aq").out


def test_volumes(settled: TestEngine) -> None:
    plain, labelled = (settled("volume", "create", *flags).ok().line for flags in ((), ("--label", "keep=1")))
    settled("volume", "create", "t-named").ok()
    settled("volume", "prune", "-f", "--filter", "label!=keep").ok()
    assert set(settled("volume", "ls", "-q").out.split()) == {labelled, "t-named"}
    settled("volume", "prune", "-f").ok()
    assert settled("volume", "ls", "-q").out.split() == ["t-named"]
    settled("volume", "prune", "-f", "--filter", "all=true", "--filter", "label=x").ok()
    assert settled("volume", "ls", "-q").out.split() == ["t-named"]
    with Client(str(settled.run_folder / "bothy.sock"), run="") as client:
        client.request("POST", "/v1.42/volumes/prune").close()
        assert settled("volume", "ls", "-q").out.split() == ["t-named"]
        # Clients of that age mean those with a name too.
        assert client.request("POST", "/v1.41/volumes/prune").json()["VolumesDeleted"] == ["t-named"]
    assert plain


@pytest.mark.parametrize("kind", ["container", "image", "volume"])
@pytest.mark.parametrize("words", ["x=1", "label!x=1", "until=whenever"])
def test_bad_filters_are_refused(settled: TestEngine, kind: str, words: str) -> None:
    done = settled(kind, "prune", "-f", "--filter", words)
    assert done.code == 1
    known = words.startswith("until") and kind != "volume"
    assert ("'whenever' is not a time" if known else f"invalid filter '{words.split('=')[0]}'") in done.err


def test_a_bad_filter_is_a_bad_request(settled: TestEngine) -> None:
    with Client(str(settled.run_folder / "bothy.sock"), run="") as client:
        for kind in ("containers", "images", "volumes"):
            with pytest.raises(Invalid, match="invalid filter 'x'"):
                client.request("POST", f"/{kind}/prune", {"filters": '{"x":["1"]}'})
