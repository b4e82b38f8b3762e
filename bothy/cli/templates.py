"""A small part of Go's text/template, as much as `--format` is used with.

    {{.State.Running}}  {{.}}  {{json .Config}}  {{index .Config.Labels "a"}}  {{(index .Ports "80/tcp") | json}}
    {{range .Mounts}}{{.Source}} {{else}}none{{end}}     {{range $name, $net := .Networks}}{{$name}} {{$net.IPAddress}}{{end}}
    {{.Label "team"}} (in lists)
    {{if eq .State.Status "running"}}up{{else if .State.Paused}}paused{{else}}down{{end}}     {{with .Config}}{{.Image}}{{end}}

Functions: json index len printf print println join split upper lower title truncate pad eq ne lt le gt ge and or not.
Anything else is refused in plain words. Source: pkg.go.dev/text/template, docker/cli templates/templates.go.
"""

from __future__ import annotations

from bothy.cli.errors import UsageError
from bothy.cli.template_functions import FUNCTIONS, printed, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Scope = dict[str, Any]
    Expression = Callable[[Any, Scope], Any]
    Node = Callable[[Any, Scope, list[str]], None]

BRANCHES = ("end", "else")


class Template:
    """A template that was read; raises UsageError where it is none."""

    def __init__(self, text: str) -> None:
        self._parts = pieces(text)
        self._at = 0
        self._nodes, stop = self._block()
        if stop:
            raise UsageError(f"invalid template: {{{{{stop}}}}} without a beginning")

    def render(self, data: Any) -> str:
        """The text for some data. Raises UsageError for a field that the data has not."""
        told: list[str] = []
        scope: Scope = {"$": data}
        for node in self._nodes:
            node(data, scope, told)
        return "".join(told)

    def _block(self) -> tuple[list[Node], str]:
        """Nodes up to {{end}} or {{else …}}, which is returned too (empty at the end of the template)."""
        nodes: list[Node] = []
        while self._at < len(self._parts):
            is_action, text = self._parts[self._at]
            self._at += 1
            if not is_action:
                nodes.append(_literal(text))
                continue
            words = tokens(text)
            keyword = words[0] if words else ""
            if keyword in BRANCHES:
                return nodes, text.strip()
            if keyword in ("if", "with", "range"):
                nodes.append(self._branch(keyword, words[1:], text))
            elif words and not keyword.startswith("/*"):
                nodes.append(_action(words, text))
        return nodes, ""

    def _branch(self, keyword: str, words: list[str], text: str) -> Node:
        body, stop = self._block()
        otherwise: list[Node] = []
        if stop.startswith("else"):
            rest = tokens(stop)[1:]
            if rest:
                otherwise = [self._branch(rest[0], rest[1:], stop)]
                stop = "end"
            else:
                otherwise, stop = self._block()
        if stop != "end":
            raise UsageError(f"invalid template: {{{{{text.strip()}}}}} has no {{{{end}}}}")
        if keyword == "range":
            names, expression = _declared(words, text)
            return _range(names, expression, body, otherwise)
        if keyword not in ("if", "with"):
            raise UsageError(f"invalid template: else {keyword}")
        names, expression = _declared(words, text)
        return _condition(names, expression, body, otherwise, is_with=keyword == "with")


def _literal(text: str) -> Node:
    return lambda data, scope, told: told.append(text)


def _action(words: list[str], text: str) -> Node:
    names, expression = _declared(words, text)
    if names:

        def assign(data: Any, scope: Scope, told: list[str]) -> None:
            scope[names[0]] = expression(data, scope)

        return assign
    return lambda data, scope, told: told.append(printed(expression(data, scope)))


def _declared(words: list[str], text: str) -> tuple[list[str], Expression]:
    """(`$names` before :=, the pipeline behind it)."""
    for i, word in enumerate(words[:4]):
        if word in (":=", "="):
            return [name for name in words[:i] if name != ","], pipeline(words[i + 1 :], text)
    return [], pipeline(words, text)


def _condition(names: list[str], expression: Expression, body: list[Node], otherwise: list[Node], *, is_with: bool) -> Node:
    def node(data: Any, scope: Scope, told: list[str]) -> None:
        value = expression(data, scope)
        inner = {**scope, names[0]: value} if names else scope
        chosen = body if truth(value) else otherwise
        for child in chosen:
            child(value if is_with and chosen is body else data, inner, told)

    return node


def _range(names: list[str], expression: Expression, body: list[Node], otherwise: list[Node]) -> Node:
    def node(data: Any, scope: Scope, told: list[str]) -> None:
        value = expression(data, scope)
        if isinstance(value, dict):
            items = [(key, value[key]) for key in sorted(value)]
        elif isinstance(value, (list, tuple)):
            items = list(enumerate(value))
        elif value is None:
            items = []
        else:
            raise UsageError(f"template: can not range over {printed(value)!r}")
        for key, item in items:
            inner = dict(scope)
            if len(names) == 2:
                inner[names[0]], inner[names[1]] = key, item
            elif names:
                inner[names[0]] = item
            for child in body:
                child(item, inner, told)
        if not items:
            for child in otherwise:
                child(data, scope, told)

    return node


def pipeline(words: list[str], text: str) -> Expression:
    """`a b | c`: each command's value is the last argument of the next."""
    commands: list[list[str]] = [[]]
    depth = 0
    for word in words:
        depth += (word == "(") - (word == ")")
        if word == "|" and not depth:
            commands.append([])
        else:
            commands[-1].append(word)
    expression: Expression | None = None
    for command in commands:
        if not command:
            raise UsageError(f"invalid template: {{{{{text.strip()}}}}} is incomplete")
        expression = _command(command, expression, text)
    assert expression is not None
    return expression


def _command(words: list[str], before: Expression | None, text: str) -> Expression:
    operands, at = [], 0
    name = words[0]
    is_call = name[0].isalpha() and name not in ("true", "false", "nil")
    if is_call:
        at = 1
        if name not in FUNCTIONS:
            raise UsageError(f"invalid template: there is no function {name!r}", hint=f"there are {', '.join(sorted(FUNCTIONS))}")
    while at < len(words):
        operand, at = _operand(words, at, text)
        operands.append(operand)
    if name == ".Label" and len(operands) == 2 and before is None:
        key = operands[1]
        return lambda data, scope: getattr(data, "labels", {}).get(key(data, scope), "")
    if not is_call:
        if before is not None or len(operands) != 1:
            raise UsageError(f"invalid template: {{{{{text.strip()}}}}}: {name!r} is no function")
        return operands[0]
    if before is not None:
        operands.append(before)
    function = FUNCTIONS[name]

    def call(data: Any, scope: Scope) -> Any:
        values = [operand(data, scope) for operand in operands]
        try:
            return function(*values)
        except (TypeError, IndexError, KeyError, ValueError) as exc:
            raise UsageError(f"template: {name}: {exc}") from None

    return call


def _operand(words: list[str], at: int, text: str) -> tuple[Expression, int]:
    """One operand and where the next begins."""
    word = words[at]
    if word == "(":
        depth, end = 1, at + 1
        while end < len(words) and depth:
            depth += (words[end] == "(") - (words[end] == ")")
            end += 1
        if depth:
            raise UsageError(f"invalid template: {{{{{text.strip()}}}}}: a ) is missing")
        inner = pipeline(words[at + 1 : end - 1], text)
        if end < len(words) and words[end].startswith(".") and len(words[end]) > 1:
            path = words[end][1:].split(".")
            return (lambda data, scope: _walk(inner(data, scope), path)), end + 1
        return inner, end
    if word[0] in "\"`'":
        constant: Any = _string(word)
        return (lambda data, scope: constant), at + 1
    if word[0].isdigit() or word[0] in "-+":
        constant = _number(word, text)
        return (lambda data, scope: constant), at + 1
    if word in ("true", "false", "nil"):
        constant = {"true": True, "false": False, "nil": None}[word]
        return (lambda data, scope: constant), at + 1
    if word.startswith("."):
        path = [name for name in word[1:].split(".") if name] if word != "." else []
        return (lambda data, scope: _walk(data, path)), at + 1
    if word.startswith("$"):
        name, *path = word.split(".")
        return (lambda data, scope: _walk(_variable(scope, name), path)), at + 1
    if word in FUNCTIONS:  # a function without arguments
        return _command([word], None, text), at + 1
    raise UsageError(f"invalid template: {{{{{text.strip()}}}}}: {word!r} is not understood")


def _variable(scope: Scope, name: str) -> Any:
    if name not in scope:
        raise UsageError(f"template: there is no variable {name}")
    return scope[name]


def _walk(value: Any, path: list[str]) -> Any:
    for name in path:
        if isinstance(value, dict):
            if name not in value:
                known = ", ".join(sorted(map(str, value))[:40])
                raise UsageError(f"template: there is no field {name!r}", hint=f"there are {known}" if known else "it is empty")
            value = value[name]
        elif value is None:
            return None
        else:
            raise UsageError(f"template: {printed(value)!r} has no field {name!r}")
    return value


def _string(word: str) -> str:
    if word[0] == "`":
        return word[1:-1]
    escapes = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}
    text, at, body = "", 0, word[1:-1]
    while at < len(body):
        if body[at] == "\\" and at + 1 < len(body):
            text += escapes.get(body[at + 1], "\\" + body[at + 1])
            at += 2
        else:
            text += body[at]
            at += 1
    return text


def _number(word: str, text: str) -> int | float:
    try:
        return float(word) if "." in word else int(word, 0)
    except ValueError:
        raise UsageError(f"invalid template: {{{{{text.strip()}}}}}: {word!r} is no number") from None


def pieces(text: str) -> list[tuple[bool, str]]:
    """(is action, text) in order; `{{-` and `-}}` take the white space beside them away."""
    found: list[tuple[bool, str]] = []
    trim = False
    while text:
        literal, opened, rest = text.partition("{{")
        if trim:
            literal = literal.lstrip()
        if not opened:
            found.append((False, literal))
            break
        action, closed, text = rest.partition("}}")
        if not closed:
            raise UsageError("invalid template: a }} is missing")
        if action.startswith("- "):
            literal, action = literal.rstrip(), action[1:]
        trim = action.endswith(" -")
        found += [(False, literal), (True, action[:-1] if trim else action)]
    return [part for part in found if part[0] or part[1]]


def tokens(text: str) -> list[str]:
    """Words of an action: names, .fields, "strings", numbers, ( ) | , := ."""
    found: list[str] = []
    at = 0
    while at < len(text):
        letter = text[at]
        if letter.isspace():
            at += 1
        elif letter in "()|,":
            found.append(letter)
            at += 1
        elif text.startswith(":=", at):
            found.append(":=")
            at += 2
        elif letter in "\"`'":
            end = at + 1
            while end < len(text) and text[end] != letter:
                end += 2 if text[end] == "\\" and letter != "`" else 1
            if end >= len(text):
                raise UsageError(f"invalid template: {{{{{text.strip()}}}}}: a quote is not closed")
            found.append(text[at : end + 1])
            at = end + 1
        else:
            end = at
            while end < len(text) and not text[end].isspace() and text[end] not in '()|,"`' and not text.startswith(":=", end):
                end += 1
            found.append(text[at:end])
            at = end
    return found
