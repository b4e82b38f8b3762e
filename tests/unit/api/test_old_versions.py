"""What clients of old versions of the API (from v1.24 on) and of lazy libraries say, and what they are answered."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from bothy.api.server.replies import API_VERSION, MIN_API_VERSION
from tests.unit.api.conftest import Door
from tests.unit.api.double import ID, workload

SPOKEN = [f"/v1.{minor}" for minor in range(MIN_API_VERSION[1], API_VERSION[1] + 1)] + [""]


def test_every_version_between_is_spoken(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload()
        for version in SPOKEN:
            for path in ("/_ping", "/containers/json", f"/containers/{ID}/json"):
                status, headers, _ = await door.ask("GET", f"{version}{path}")
                assert status == 200, (version, path)
                assert headers["api-version"] == "{}.{}".format(*API_VERSION)

    at_door(scenario)


@pytest.mark.parametrize(
    "said",
    [{"label": ["a", "b=c"]}, {"label": {"a": True, "b=c": True}}, {"label": {"a": True, "b=c": True, "d": False}}],
    ids=["list", "map", "map with a false"],
)
@pytest.mark.parametrize("version", ["/v1.24", "/v1.41", ""])
def test_filters_are_lists_or_maps(at_door, version, said):
    async def scenario(door: Door) -> None:
        await door.json("GET", f"{version}/containers/json?all=1&filters={quote(json.dumps(said))}")
        assert door.engine.containers.asked[-1] == ("list", True, 0, {"label": ["a", "b=c"]})

    at_door(scenario)


@pytest.mark.parametrize(
    ("word", "asked"), [("1", True), ("True", True), ("0", False), ("False", False), ("", False), ("none", False)]
)
def test_booleans_in_the_words_of_old_clients(at_door, word, asked):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload()
        listed = await door.json("GET", f"/v1.24/containers/json?all={word}&size={word}")
        assert door.engine.containers.asked[-1] == ("list", asked, 0, {})
        assert ("SizeRw" in listed[0]) is asked

    at_door(scenario)


def test_sizes_are_told_only_to_who_asks(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload()
        for version in ("/v1.24", "/v1.38", ""):
            assert "SizeRw" not in await door.json("GET", f"{version}/containers/{ID}/json")
            assert (await door.json("GET", f"{version}/containers/{ID}/json?size=1"))["SizeRootFs"] == 9

    at_door(scenario)


def test_a_platform_may_be_named_by_any_version(at_door):
    async def scenario(door: Door) -> None:
        for version in ("/v1.32", "/v1.41", ""):
            await door.json("POST", f"{version}/containers/create?platform=linux%2Famd64", {"Image": "busybox"})
            assert door.engine.containers.asked[-1] == ("create", "linux/amd64")

    at_door(scenario)


@pytest.mark.parametrize("word", ["Cmd", "Entrypoint"])
def test_a_command_may_be_one_text(at_door, word):
    async def scenario(door: Door) -> None:
        await door.json("POST", "/v1.24/containers/create", {"Image": "busybox", word: "true"})
        assert (await door.ask("POST", "/v1.24/containers/create", {"Image": "busybox", word: 5}))[0] == 400

    at_door(scenario)
