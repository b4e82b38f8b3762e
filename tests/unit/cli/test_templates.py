"""The Go templates of --format."""

from __future__ import annotations

from typing import Any

import pytest

from bothy.cli.errors import UsageError
from bothy.cli.tables import Labelled
from bothy.cli.templates import Template

DATA: dict[str, Any] = {
    "Id": "abc",
    "State": {"Running": True, "ExitCode": 0, "Error": None, "Health": None},
    "Config": {"Labels": {"a.b": "c", "x": "y"}, "Cmd": ["sh", "-c"], "Env": []},
    "Ports": {"80/tcp": [{"HostPort": "8080"}], "90/udp": None},
    "Networks": {"bridge": {"IPAddress": "172.18.0.2"}, "other": {"IPAddress": "172.19.0.2"}},
    "Size": 1.5,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("{{.Id}}", "abc"),
        ("a {{ .Id }} b", "a abc b"),
        ("{{.State.Running}} {{.State.ExitCode}} {{.State.Error}}", "true 0 <no value>"),
        ("{{.State.Health.Status}}", "<no value>"),
        ("{{.Config.Cmd}}", "[sh -c]"),
        ("{{.Config.Labels}}", "map[a.b:c x:y]"),
        ("{{json .Config.Cmd}}", '["sh","-c"]'),
        ("{{.Config.Cmd | json}}", '["sh","-c"]'),
        ('{{index .Config.Labels "a.b"}}', "c"),
        ('{{index .Config.Labels "none"}}', "<no value>"),
        ("{{index .Config.Cmd 1}}", "-c"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{with index .Ports "80/tcp"}}{{(index . 0).HostPort}}{{end}}', "8080"),
        ("{{range .Networks}}{{.IPAddress}} {{end}}", "172.18.0.2 172.19.0.2 "),
        ("{{range $name, $net := .Networks}}{{$name}}={{$net.IPAddress}};{{end}}", "bridge=172.18.0.2;other=172.19.0.2;"),
        ("{{range $i, $w := .Config.Cmd}}{{$i}}{{$w}}{{end}}", "0sh1-c"),
        ("{{range .Config.Env}}x{{else}}none{{end}}", "none"),
        ("{{range .Config.Cmd}}{{$.Id}}{{end}}", "abcabc"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .State.Error}}a{{else if .Config.Env}}b{{else}}c{{end}}", "c"),
        ('{{if and .State.Running (eq .Id "abc")}}yes{{end}}', "yes"),
        ('{{if or .State.Error (ne .Id "abc")}}yes{{else}}no{{end}}', "no"),
        ("{{if not .State.Error}}fine{{end}}", "fine"),
        ("{{if gt .Size 1.0}}big{{end}}", "big"),
        ("{{$x := .Id}}{{$x}}{{$x}}", "abcabc"),
        ('{{join .Config.Cmd ", "}}', "sh, -c"),
        ('{{printf "%-6s|%5.1f|%q|%v" .Id .Size .Id .State.Running}}', 'abc   |  1.5|"abc"|true'),
        ("{{upper .Id}}{{len .Config.Cmd}}{{truncate .Id 2}}", "ABC2ab"),
        ('{{"quoted \\"x\\""}}{{`raw`}}', 'quoted "x"raw'),
        ("a {{- .Id -}} b", "aabcb"),
        ("{{/* a remark */}}x", "x"),
        ("{{println .Id}}", "abc\n"),
        ("{{.}}", "map["),
    ],
)
def test_rendering(text: str, expected: str) -> None:
    told = Template(text).render(DATA)
    assert told == expected or (text == "{{.}}" and told.startswith(expected))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{.Id", "a }} is missing"),
        ("{{if .Id}}x", "has no {{end}}"),
        ("{{end}}", "without a beginning"),
        ("{{foo .Id}}", "there is no function 'foo'"),
        ('{{index .Id "}}', "a quote is not closed"),
        ("{{(.Id}}", "a ) is missing"),
        ("{{.Id | }}", "is incomplete"),
        ("{{.Id .Id}}", "'.Id' is no function"),
        ("{{define}}", "there is no function 'define'"),
        ("{{1x}}", "is no number"),
    ],
)
def test_templates_that_are_none(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Template(text)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{.Nope}}", "there is no field 'Nope'"),
        ("{{.Id.Deeper}}", "'abc' has no field 'Deeper'"),
        ("{{range .Id}}{{end}}", "can not range over 'abc'"),
        ("{{index .Config.Cmd 5}}", "out of range"),
        ('{{printf "%d" .Id}}', "%d does not fit"),
        ("{{if lt .Id 1}}{{end}}", "can not compare"),
        ("{{$x}}", "there is no variable $x"),
    ],
)
def test_data_that_does_not_fit(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Template(text).render(DATA)
    assert message in caught.value.message


def test_labels_of_a_list() -> None:
    row = Labelled({"ID": "1"})
    row.labels = {"team": "blue"}
    assert Template('{{.ID}} {{.Label "team"}}{{.Label "none"}}').render(row) == "1 blue"


def test_the_fields_that_there_are_are_told() -> None:
    with pytest.raises(UsageError) as caught:
        Template("{{.State.Runing}}").render(DATA)
    assert caught.value.hint == "there are Error, ExitCode, Health, Running"
