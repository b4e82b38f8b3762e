"""Digests: only whole sha256 digests pass, chain ids are the spec's."""

import pytest

from bothy.oci import digest

A = digest.of(b"a")
B = digest.of(b"b")


def test_digest_of_bytes_is_a_digest():
    assert A == "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert digest.is_digest(A)


@pytest.mark.parametrize("text", ["", "sha256:", A[:-1], A + "0", A.upper(), "sha512:" + "0" * 128, A + "\n", "../" + A])
def test_what_is_no_digest_is_refused(text):
    assert not digest.is_digest(text)
    with pytest.raises(ValueError, match="invalid digest"):
        digest.encoded(text)


def test_chain_ids_follow_the_specification():
    first, second = digest.chain_ids([A, B])
    assert first == A
    assert second == digest.of(f"{A} {B}".encode())
    assert digest.chain_ids([]) == []
