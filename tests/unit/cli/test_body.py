"""`run`'s flags become the body that Docker's own command line sends: docker_bodies.json was recorded from docker 28.2."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from bothy.cli.body import attached, create_body
from bothy.cli.errors import UsageError
from bothy.cli.flags import Values, parse
from bothy.cli.run import COMMANDS

RECORDED = json.loads((Path(__file__).parent / "docker_bodies.json").read_text())
SERVER_SIDE = {  # what Docker checks, or names, in its command line, and bothy in its engine
    "run --pids-limit -1 --pids-limit 0 img",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "env").write_text("# comment\nX=1\nFROM_US\nNOPE\n  Y=2 3\n\n")
    (tmp_path / "labels").write_text("la=lb\n")
    (tmp_path / "seccomp.json").write_text('{"defaultAction": "SCMP_ACT_ALLOW",  "x":[1, 2]}')
    return tmp_path


def flags_of(line: str, folder: Path) -> Values:
    for word, name in (("ENV_FILE", "env"), ("LABEL_FILE", "labels"), ("SECCOMP_FILE", "seccomp.json")):
        line = line.replace(word, str(folder / name))
    verb, *argv = shlex.split(line)
    return parse(COMMANDS[verb], argv)


def body_of(line: str, folder: Path) -> dict[str, Any]:
    return create_body(flags_of(line, folder), {"FROM_US": "passed"})


def without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: without_empty(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in (None, "", 0, False, [], {})}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


def comparable(body: dict[str, Any]) -> Any:
    """Without defaults that are as good as absent, and without an order where there is none."""
    body = json.loads(json.dumps(body))
    body.pop("MacAddress", None)  # deprecated since API 1.44: it is the endpoint's too
    marks = [body["HostConfig"].get("Init"), body.get("StopTimeout"), body["HostConfig"].get("MaskedPaths")]
    ports, exposed = body["HostConfig"].get("PortBindings"), sorted(body.get("ExposedPorts") or ())
    labels, tmpfs = body.get("Labels"), body["HostConfig"].get("Tmpfs")
    if (body["HostConfig"].get("RestartPolicy") or {}).get("Name") == "no":
        del body["HostConfig"]["RestartPolicy"]
    for place in (body, body["HostConfig"]):
        for name in ("Env", "Binds", "Ulimits"):
            if name in place:
                place[name] = sorted(place[name], key=str)
    return without_empty(body), marks, ports or None, exposed, labels or None, tmpfs or None, body.get("Volumes") or None


@pytest.mark.parametrize("record", RECORDED, ids=lambda record: record["line"])
def test_the_body_is_docker_s(record: dict[str, Any], folder: Path) -> None:
    expected = json.loads(json.dumps(record["body"]).replace("CWD", str(folder)))
    ours = body_of(record["line"], folder)
    if record["line"] in SERVER_SIDE:
        ours["HostConfig"].pop("PidsLimit")
    assert comparable(ours) == comparable(expected)


def test_vm_is_a_runtime(folder: Path) -> None:
    assert body_of("run --vm img", folder)["HostConfig"]["Runtime"] == "vm"
    assert body_of("run --vm --runtime vm img", folder)["HostConfig"]["Runtime"] == "vm"
    with pytest.raises(UsageError, match="exclude each other"):
        body_of("run --vm --runtime runc img", folder)


def test_the_size_of_the_terminal_goes_along(folder: Path) -> None:
    flags = flags_of("run -t img", folder)
    assert create_body(flags, {}, (24, 80))["HostConfig"]["ConsoleSize"] == [24, 80]
    assert "ConsoleSize" not in create_body(flags_of("run img", folder), {}, (24, 80))["HostConfig"]


def test_what_is_attached(folder: Path) -> None:
    assert attached(flags_of("run img", folder)) == {"stdout", "stderr"}
    assert attached(flags_of("run -i img", folder)) == {"stdin", "stdout", "stderr"}
    assert attached(flags_of("run -d img", folder)) == set()
    assert attached(flags_of("run -a STDOUT img", folder)) == {"stdout"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run --cpus x img", "invalid number of cpus 'x'"),
        ("run --cpus 1.1234567891 img", "invalid number of cpus"),
        ("run --cpus . img", "invalid number of cpus"),
        ("run -m x img", "invalid size 'x' for --memory"),
        ("run -m 1x img", "invalid size"),
        ("run -m '' img", "invalid size"),
        ("run -p a img", "'a' is no port"),
        ("run -p 1-3:5-6 img", "differ in length"),
        ("run -p 99999:1 img", "'99999' is no port"),
        ("run -p 80/foo img", "no protocol 'foo'"),
        ("run -p [::1]:80 img", "which port"),
        ("run --expose x img", "'x' is no port"),
        ("run -v /a:/b:/c:d img", "too many colons"),
        ("run -v ::: img", "too many colons"),
        ("run -v /a::ro img", "nothing between two colons"),
        ("run --mount dst=/b,bogus=1 img", "no key 'bogus'"),
        ("run --mount type=bind,source=/a img", "target is missing"),
        ("run --mount type=bind,source=/a,dst=/b,tmpfs-size=1 img", "do not fit type bind"),
        ("run --mount type=tmpfs,dst=/b,tmpfs-mode=9 img", "octal"),
        ("run --mount type=bind,src=/a,dst=/b,readonly=perhaps img", "neither true nor false"),
        ("run --ulimit foo=1 img", "no limit 'foo'"),
        ("run --ulimit nofile=3:1 img", "above the hard limit"),
        ("run --ulimit nofile img", "invalid ulimit"),
        ("run --device a:b:c:d img", "invalid device"),
        ("run --rm --restart always img", "exclude each other"),
        ("run --cidfile ENV_FILE img", "exists already"),
        ("run -a foo img", "invalid stream 'foo'"),
        ("run -d -a stdout img", "exclude each other"),
        ("run --mac-address xx img", "invalid MAC address"),
        ("run --health-cmd a --no-healthcheck img", "exclude each other"),
        ("run --health-interval 5 img", "invalid duration '5' for --health-interval"),
        ("run --pid foo img", "invalid --pid 'foo'"),
        ("run --uts foo img", "invalid --uts"),
        ("run --userns foo img", "invalid --userns"),
        ("run --cgroupns foo img", "invalid --cgroupns"),
        ("run --env-file /nope img", "No such file"),
        ("run -e =a img", "invalid environment variable"),
        ("run --security-opt seccomp=/nope img", "No such file"),
        ("run --security-opt seccomp=ENV_FILE img", "is not JSON"),
        ("run --security-opt bogus img", "invalid --security-opt 'bogus'"),
        ("run --restart on-failure:x img", "no number"),
        ("run --memory-swappiness 101 img", "0 to 100"),
        ("run --pull sometimes img", "invalid --pull"),
        ("run --add-host x img", "invalid --add-host"),
        ("run --sysctl x img", "invalid value 'x' for --sysctl"),
        ("run --network name=a,foo=b img", "no key 'foo'"),
        ("run --network alias=b img", "name is missing"),
        ("run --device-read-bps x img", "invalid value"),
        ("run '' x", "image is empty"),
        ("run --gpus all img", "--gpus is not supported"),
    ],
)
def test_nonsense_is_refused_before_the_engine_is_asked(line: str, words: str, folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        body_of(line, folder)
    assert words in caught.value.message
    assert caught.value.code == (1 if line.startswith("run -d -a") else 125)
