"""Names of entries: whatever a stranger writes, the place is below the root, or the entry is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothy.images.unpack import clean
from bothy.tar.headers import Damaged


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        (b"a", b"a"),
        (b"./a/", b"a"),
        (b"/a//b", b"a/b"),
        (b"a/../b", b"b"),
        (b"a/./b/..", b"a"),
        (b"", b""),
        (b"./", b""),
        (b"...", b"..."),
    ],
)
def test_names_are_cleaned(name, cleaned):
    assert clean(name) == cleaned


@pytest.mark.parametrize("name", [b"..", b"../a", b"/../a", b"a/../../b", b"./..", b"a/b/../../.."])
def test_names_that_climb_out_are_refused(name):
    with pytest.raises(Damaged, match="climbs out"):
        clean(name)


@given(st.lists(st.sampled_from([b"a", b"b", b".", b"..", b"", b".wh.a"]), max_size=12))
def test_a_clean_name_stays_below_the_root(parts):
    try:
        cleaned = clean(b"/".join(parts))
    except Damaged:
        return
    assert not cleaned.startswith(b"/")
    assert not set(cleaned.split(b"/")) & {b"..", b"."}
    assert clean(cleaned) == cleaned
