"""Questions to registries: whether a name and a password are good, what an image's name stands for, what there is.

    GET /v2/ ──▶ 200: nothing is asked for
             └─▶ 401 WWW-Authenticate: Basic   ─▶ again with the password
                                       Bearer  ─▶ GET realm?service&scope with the password ─▶ again with the token

Sources: OCI distribution spec v1.1; distribution's token authentication; Docker's rules for names without a host.
Registries at a loopback address are asked by plain HTTP where they do not speak TLS, as Docker does.

This is the code of a process that asks one question and ends (see `bothy.engine.registry`):

    stdin     JSON: {"ask": login | describe | search, "parent": pid, …arguments}
    stdout    JSON: {"answer": …} or {"refusal": {category, message, hint}}
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from bothy import __version__
from bothy.errors import BothyError, Forbidden, Invalid, NotFound, Unauthorized, Unavailable
from bothy.images.credentials import Credentials
from bothy.linux import syscalls
from bothy.oci import reference as references

HUB_API = "registry-1.docker.io"
_TYPES = (
    "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json",
)  # fmt: skip
_PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"')
_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=10)
_MOST = 4 * 1024 * 1024


class Registry:
    """One registry, for one conversation: `async with Registry(host, credentials) as registry`."""

    def __init__(self, host: str, credentials: Credentials) -> None:
        self._host = HUB_API if host in (references.DEFAULT_DOMAIN, "") else host
        self._credentials = credentials
        self._schemes = ("https", "http") if _is_loopback(self._host) else ("https",)
        self._token = ""

    async def __aenter__(self) -> Registry:
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, headers={"User-Agent": f"bothy/{__version__}"})
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, path: str, scope: str = "", accept: tuple[str, ...] = ()) -> tuple[Mapping[str, str], bytes]:
        """Headers and body of an answer. Raises Unauthorized, Forbidden, NotFound, Unavailable."""
        headers = {"Accept": ", ".join(accept)} if accept else {}
        status, found, body = await self._ask(self._url(path), headers)
        if status == 401:
            authorization = await self._authorization(found.get("WWW-Authenticate", ""), scope)
            status, found, body = await self._ask(self._url(path), {**headers, "Authorization": authorization})
        if status == 401:
            raise self._unauthorized(path)
        if status == 403:
            raise Forbidden(f'Get "{self._url(path)}": denied: requested access to the resource is denied')
        if status == 404:
            raise NotFound(f"{self._host}{path} is not there")
        if status != 200:
            raise Unavailable(f'Get "{self._url(path)}": the registry answered {status}')
        return found, body

    def _unauthorized(self, path: str) -> Unauthorized:
        return Unauthorized(f'Get "{self._url(path)}": unauthorized: incorrect username or password')

    def _url(self, path: str) -> str:
        return f"{self._schemes[0]}://{self._host}{path}"

    async def _ask(self, url: str, headers: dict[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        try:
            async with self._session.get(url, headers=headers) as answer:
                body = await answer.content.read(_MOST + 1)
                if len(body) > _MOST:
                    raise Unavailable(f'Get "{url}": the answer is too long')
                return answer.status, answer.headers, body
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            if len(self._schemes) > 1 and url.startswith("https://"):
                self._schemes = ("http",)
                return await self._ask("http://" + url.removeprefix("https://"), headers)
            raise Unavailable(f'Get "{url}": {exc or type(exc).__name__}', hint="is the registry within reach?") from exc

    async def _authorization(self, challenge: str, scope: str) -> str:
        """What to answer to a challenge with. Raises Unauthorized, Unavailable."""
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic":
            return self._credentials.basic
        parameters = dict(_PARAMETER.findall(rest))
        realm = parameters.get("realm", "")
        if kind.lower() != "bearer" or urlsplit(realm).scheme not in ("http", "https"):
            raise Unavailable(f"{self._host} asks to log in in a way that is not known: {challenge[:200]!r}")
        query = f"service={quote(parameters.get('service', ''))}" + (f"&scope={quote(scope)}" if scope else "")
        named = self._credentials.username
        if named:
            query += f"&account={quote(named)}"
        headers = {"Authorization": self._credentials.basic} if named else {}
        status, _, body = await self._ask(f"{realm}{'&' if '?' in realm else '?'}{query}", headers)
        if status != 200:
            raise self._unauthorized("/v2/")
        try:
            found = json.loads(body)
            return "Bearer " + str(found.get("token") or found["access_token"])
        except (ValueError, KeyError, AttributeError) as exc:
            raise Unavailable(f"{self._host}: its token can not be read") from exc


async def login(host: str, credentials: Credentials) -> None:
    """Whether a registry knows who asks. Raises Unauthorized if not, Unavailable, Invalid."""
    async with Registry(_host(host), credentials) as registry:
        await registry.get("/v2/")


async def describe(name: str, credentials: Credentials) -> dict[str, Any]:
    """What an image's name stands for in its registry: descriptor and platforms, in the shape of Docker's DistributionInspect.

    Raises Invalid (no name), NotFound, Forbidden, Unavailable.
    """
    try:
        reference = references.normalise(name)
    except ValueError as exc:
        raise Invalid(str(exc)) from exc
    wanted = reference.digest or reference.tag
    async with Registry(reference.domain, credentials) as registry:
        path, scope = f"/v2/{reference.path}", f"repository:{reference.path}:pull"
        headers, body = await registry.get(f"{path}/manifests/{wanted}", scope, _TYPES)
        manifest = _object(body, name)
        kind = str(manifest.get("mediaType") or headers.get("Content-Type", ""))
        digest = headers.get("Docker-Content-Digest", reference.digest or "")
        if "manifests" in manifest:
            platforms = [_platform(entry.get("platform")) for entry in manifest["manifests"] if isinstance(entry, dict)]
        else:
            config = manifest.get("config") or {}
            _, text = await registry.get(f"{path}/blobs/{quote(str(config.get('digest', '')), safe=':')}", scope)
            platforms = [_platform(_object(text, name))]
    return {"Descriptor": {"mediaType": kind, "digest": digest, "size": len(body)}, "Platforms": platforms}


async def search(term: str, limit: int, credentials: Credentials) -> list[dict[str, Any]]:
    """Repositories whose name or description has the term, of the registry that it begins with or of Docker's.

    Raises Invalid (no term), NotFound (that registry can not search), Forbidden, Unavailable.
    """
    if not term:
        raise Invalid("search: a term is missing")
    first, slash, rest = term.partition("/")
    has_host = slash and ("." in first or ":" in first or first == "localhost")
    host, term = (first, rest) if has_host else (references.LEGACY_DOMAIN, term)
    async with Registry(host, credentials) as registry:
        _, body = await registry.get(f"/v1/search?q={quote(term)}&n={limit}")
    results = _object(body, term).get("results") or []
    return [entry for entry in results if isinstance(entry, dict)]


def _object(body: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError as exc:
        raise Unavailable(f"{what}: the registry's answer can not be read: {exc}") from exc
    if not isinstance(found, dict):
        raise Unavailable(f"{what}: the registry's answer is no object")
    return found


def _platform(data: Any) -> dict[str, Any]:
    known = data if isinstance(data, dict) else {}
    found = {key: known[key] for key in ("architecture", "os", "variant") if isinstance(known.get(key), str) and known[key]}
    return {"architecture": "", "os": "", **found}


def _host(address: str) -> str:
    """The registry of a server address as clients write it: with or without scheme and path."""
    bare = address.partition("://")[2] if "://" in address else address
    host = bare.partition("/")[0]
    if not host and bare:
        raise Invalid(f"{address!r} is not the address of a registry")
    return references.DEFAULT_DOMAIN if host == references.LEGACY_DOMAIN else host


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    try:
        return name == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


async def _answer(question: dict[str, Any]) -> Any:
    credentials = Credentials(question["username"], question["password"])
    if question["ask"] == "login":
        return await login(question["host"], credentials)
    if question["ask"] == "describe":
        return await describe(question["name"], credentials)
    return await search(question["term"], question["limit"], credentials)


def main() -> None:
    """Ask the question on stdin, write what came of it to stdout."""
    question = json.load(sys.stdin)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != question["parent"]:
        return  # nobody is there to be told
    try:
        said = {"answer": asyncio.run(_answer(question))}
    except BothyError as exc:
        said = {"refusal": {"category": exc.category, "message": exc.message, "hint": exc.hint}}
    json.dump(said, sys.stdout)
