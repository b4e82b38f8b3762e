"""Dockerfile instructions of import and commit."""

import pytest

from bothy.errors import Invalid
from bothy.images import changes
from bothy.oci.image import Healthcheck, ImageConfig


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        (["CMD ls -l"], ImageConfig(cmd=["/bin/sh", "-c", "ls -l"])),
        (['cmd ["ls", "-l"]'], ImageConfig(cmd=["ls", "-l"])),
        (["ENTRYPOINT [not json"], ImageConfig(entrypoint=["/bin/sh", "-c", "[not json"])),
        (['SHELL ["/bin/bash", "-c"]', "CMD x"], ImageConfig(shell=["/bin/bash", "-c"], cmd=["/bin/bash", "-c", "x"])),
        (["ENV a=1 b='2 3'", "ENV a 4 5"], ImageConfig(env=["b=2 3", "a=4 5"])),
        (["EXPOSE 80 53/UDP 90-91"], ImageConfig(exposed_ports={"80/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}})),
        (["LABEL a=1 b=", "LABEL a=2"], ImageConfig(labels={"a": "2", "b": ""})),
        (['VOLUME ["/a b"]', "VOLUME /c /d"], ImageConfig(volumes={"/a b": {}, "/c": {}, "/d": {}})),
        (["WORKDIR a", "WORKDIR b/../c"], ImageConfig(working_dir="/a/c")),
        (["USER 1:2", "STOPSIGNAL SIGINT", "ONBUILD RUN x"], ImageConfig(user="1:2", stop_signal="SIGINT", on_build=["RUN x"])),
        (["HEALTHCHECK NONE"], ImageConfig(healthcheck=Healthcheck(["NONE"]))),
        (
            ["HEALTHCHECK --interval=1m30s --retries=2 CMD true"],
            ImageConfig(healthcheck=Healthcheck(["CMD-SHELL", "true"], interval=90 * 10**9, retries=2)),
        ),
    ],
)
def test_instructions(instructions, expected):
    assert changes.apply(ImageConfig(), instructions) == expected


@pytest.mark.parametrize(
    "instruction",
    ["", "RUN x", "CMD", "ENV a", "ENV =b", "EXPOSE 0", "EXPOSE 70000", "EXPOSE 9-8", "EXPOSE x", "HEALTHCHECK x", "SHELL x",
     "HEALTHCHECK --interval=1 CMD x", "HEALTHCHECK --nope=1 CMD x", "LABEL a", "ENV 'a"],
)  # fmt: skip
def test_instructions_that_make_no_sense(instruction):
    with pytest.raises(Invalid) as raised:
        changes.apply(ImageConfig(), [instruction])
    assert raised.value.message
