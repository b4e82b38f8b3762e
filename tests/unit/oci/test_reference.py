"""References: Docker's rules of what a name means and what a name can be."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bothy.oci import reference

DIGEST = "sha256:" + "ab" * 32

MEANINGS = [
    ("debian", "docker.io/library/debian:latest", "debian:latest"),
    ("debian:bookworm", "docker.io/library/debian:bookworm", "debian:bookworm"),
    ("library/debian", "docker.io/library/debian:latest", "debian:latest"),
    ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
    ("index.docker.io/library/debian", "docker.io/library/debian:latest", "debian:latest"),
    ("me/app:1", "docker.io/me/app:1", "me/app:1"),
    ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
    ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
    ("localhost:5000/a/b:x", "localhost:5000/a/b:x", "localhost:5000/a/b:x"),
    ("quay.io/a/b", "quay.io/a/b:latest", "quay.io/a/b:latest"),
    ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
    (f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}", f"debian@{DIGEST}"),
    (f"debian:1@{DIGEST}", f"docker.io/library/debian:1@{DIGEST}", f"debian:1@{DIGEST}"),
    ("a__b/c-d--e.f", "docker.io/a__b/c-d--e.f:latest", "a__b/c-d--e.f:latest"),
    ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "canonical", "familiar"), MEANINGS)
def test_a_name_means_its_canonical_form(text, canonical, familiar):
    parsed = reference.normalise(text)
    assert (str(parsed), parsed.familiar) == (canonical, familiar)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", ":tag", "Debian", "a/B", "a//b", "/a", "a/", "a b", "a:", "a:b:c", "a:-x", "a:" + "x" * 129, "a@", "a@sha256:12",
        "a@" + DIGEST.upper(), "..", "../a", "a/..", "-a", "a-", "a___b", "ab" * 32, "x/" + "y" * 260, "ex ample.com/a", "a\n", "a:b\n", "ä",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(ValueError, match="invalid reference"):
        reference.normalise(text)


def test_a_bare_reference_keeps_that_it_has_no_tag():
    assert reference.parse("debian").tag == ""
    assert reference.parse("debian").with_tag("x").familiar == "debian:x"
    with pytest.raises(ValueError, match="invalid tag"):
        reference.parse("debian").with_tag("a/b")


component = st.from_regex(r"\A[a-z0-9]{1,6}(?:(?:\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}\Z")
domains = st.sampled_from(["", "docker.io/", "localhost/", "localhost:5000/", "registry.example.com/", "Host/", "[::1]:80/"])
tags = st.from_regex(r"\A(?:|:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})\Z")


@given(domains, st.lists(component, min_size=1, max_size=4), tags)
def test_reading_what_was_written_is_the_same_reference(domain, components, tag):
    assume(domain or "." not in components[0] or "_" not in components[0])  # that would be an invalid host
    parsed = reference.normalise(domain + "/".join(components) + tag)
    assert reference.normalise(str(parsed)) == parsed
    assert reference.normalise(parsed.familiar) == parsed


@given(st.text(max_size=40))
def test_any_text_is_a_safe_reference_or_refused(text):
    try:
        parsed = reference.normalise(text)
    except ValueError:
        return
    assert ".." not in parsed.path.split("/")
    assert not parsed.path.startswith("/")
    assert reference.normalise(parsed.familiar) == parsed
