"""Recipes: what was recorded comes back, in order; damage is noticed."""

import io

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bothy.images import recipe

records = st.lists(
    st.one_of(st.binary(min_size=1, max_size=600), st.tuples(st.binary(min_size=1, max_size=30), st.integers(0, 2**40)))
)


def written(items) -> bytes:
    out = io.BytesIO()
    writer = recipe.Writer(out)
    for item in items:
        if isinstance(item, bytes):
            writer.raw(item)
        else:
            writer.file(*item)
    writer.close()
    return out.getvalue()


def joined(items):
    """The items with neighbouring bytes made one."""
    result = []
    for item in items:
        if isinstance(item, bytes) and result and isinstance(result[-1], bytes):
            result[-1] += item
        else:
            result.append(item)
    return result


@given(records)
def test_records_come_back(items):
    assert joined(recipe.records(io.BytesIO(written(items)))) == joined(items)


def test_large_bytes_come_back():
    data = bytes(range(256)) * 10_000
    assert joined(recipe.records(io.BytesIO(written([data, (b"x", 1), data])))) == [data, (b"x", 1), data]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_truncated_recipe_is_noticed(cut):
    whole = written([b"abc" * 100, (b"name", 7), b"d"])
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(whole)
    damaged = zstandard.ZstdCompressor().compress(plain[:-cut])
    with pytest.raises(ValueError, match="too early"):
        list(recipe.records(io.BytesIO(damaged)))
