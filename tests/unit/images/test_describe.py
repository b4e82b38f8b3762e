"""Images in the Docker API's words."""

from bothy.images import describe
from bothy.images.model import Image
from bothy.oci.image import History, ImageConfig

IMAGE = Image(
    "sha256:" + "1" * 64, "2024-01-02T03:04:05.678Z", "amd64", "linux", 30, ImageConfig(cmd=["sh"]), ["sha256:a", "sha256:b"],
    repo_tags=["x:latest"],
    history=[History("2024-01-01T00:00:00Z", "one"), History("", "two", empty_layer=True), History("", "three", comment="c")],
)  # fmt: skip


def test_history_is_newest_first_with_the_layers_sizes():
    steps = describe.history(IMAGE, [10, 20])
    assert [(step["CreatedBy"], step["Size"]) for step in steps] == [("three", 20), ("two", 0), ("one", 10)]
    assert (steps[0]["Id"], steps[0]["Tags"]) == (IMAGE.id, ["x:latest"])
    assert steps[1]["Id"] == "<missing>"
    assert steps[2]["Created"] == 1704067200


def test_times_of_all_kinds():
    assert describe.unix_time("2024-01-01T01:00:00+01:00") == 1704067200
    assert describe.unix_time("2024-01-02T03:04:05.678Z") == 1704164645
    assert describe.unix_time("") == 0
    assert describe.unix_time("2024-13-45T00:00:00Z") == 0
