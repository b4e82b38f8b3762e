"""The server's sockets: each network's, at its gateway's address, which let in what comes from its own bridge only.

    datagram ─▶ what has changed is read ─▶ known bytes? ─yes─▶ their answer
                                                └─no─▶ read, found in the zone ─▶ answered (and known from now on)
                                                                  └─ not ours ─▶ upstream ─▶ passed on

The bridge is what tells networks apart (SO_BINDTODEVICE): a packet for this gateway from another network's bridge reaches no
socket, and a source address that is not of the network gets no answer. So nobody elsewhere learns a name, nor is flooded by us.
"""

from __future__ import annotations

import _socket
from collections import Counter
from collections.abc import Callable

from bothy.linux import channel
from bothy.networks.dns import message
from bothy.networks.dns.loop import IN, Loop, Socket
from bothy.networks.dns.message import Query
from bothy.networks.dns.stream import Conversation
from bothy.networks.dns.upstream import Upstream
from bothy.networks.dns.zone import Client, Network, Zone

MAX_DATAGRAM = 4096
MAX_STREAMS, MAX_STREAMS_OF_NETWORK, MAX_STREAMS_OF_ONE = 256, 128, 16
_BATCH = 32


class Server:
    """`refresh` brings the zone up to date; it is called after a query has come and before it is answered, so that no answer is
    older than its query."""

    def __init__(self, loop: Loop, zone: Zone, upstream: Upstream, refresh: Callable[[], object]) -> None:
        self.loop, self.zone, self.refresh = loop, zone, refresh
        self._upstream = upstream
        self._sockets: dict[str, list[Socket]] = {}
        self._streams: dict[Conversation, tuple[str, str]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()

    def serve(self, network: Network, sockets: list[Socket]) -> None:
        """Serve a network at these sockets (datagrams, and streams that listen), which belong to the server from now on."""
        self.drop(network.id)
        self._sockets[network.id] = sockets
        for sock in sockets:
            sock.setblocking(False)
            handler = self._datagrams(sock, network) if sock.type == _socket.SOCK_DGRAM else self._knocks(sock, network)
            self.loop.watch(sock.fileno(), IN, handler)

    def drop(self, network: str) -> None:
        """Serve a network no longer; one that is not served is no error."""
        for conversation in [c for c, (of, _) in self._streams.items() if of == network]:
            conversation.close()
        for sock in self._sockets.pop(network, ()):
            self.loop.unwatch(sock.fileno())
            sock.close()

    def sockets(self) -> dict[str, list[Socket]]:
        """The sockets of each network."""
        return self._sockets

    # -- datagrams

    def _datagrams(self, sock: Socket, network: Network) -> Callable[[int], None]:
        """The handler of a datagram socket. Nearly every query takes this way, so it does nothing that can be left undone."""
        receive, send, refresh, clients = sock.recvfrom, sock.sendto, self.refresh, network.clients

        def ready(_events: int) -> None:
            for _ in range(_BATCH):
                try:
                    data, source = receive(MAX_DATAGRAM)
                except OSError:
                    return
                refresh()
                try:
                    answer: bytes | None = data[:2] + next(clients[source[0]].kept[data[2:]])
                except KeyError:
                    answer = self._find(sock, network, data, source)
                if answer:
                    _send(send, answer, source)

        return ready

    def _find(self, sock: Socket, network: Network, data: bytes, source: tuple[str, int]) -> bytes | None:
        """The answer to what has not been asked before; None if there is none, or not yet."""
        client = self.client(network, source[0])
        if client is None:
            return None
        query = message.read(data)
        if not isinstance(query, Query):
            return query
        answer = self.zone.answer(client, data, query)
        if answer is not None:
            return answer

        def reply(answer: bytes | None) -> None:
            if sock.fileno() >= 0:
                _send(sock.sendto, answer or message.failure(data, query, message.SERVFAIL), source)

        key = (network.id, *source[:2], data[:2], query.name, query.kind)
        self._ask(client, key, network, source[0], data, reply, stream=False)
        return None

    def client(self, network: Network, source: str) -> Client | None:
        """Who asks; None for who does not belong to the network."""
        return network.clients.get(source) or self.zone.client(network, source)

    def _ask(
        self,
        client: Client,
        key: tuple[object, ...],
        network: Network,
        source: str,
        data: bytes,
        reply: Callable[[bytes | None], None],
        *,
        stream: bool,
    ) -> None:
        parties = (network.id, (network.id, source))
        if not self._upstream.ask(key, parties, data, client.servers, reply, stream=stream):
            reply(None)

    # -- streams

    def _knocks(self, listener: Socket, network: Network) -> Callable[[int], None]:
        def ready(_events: int) -> None:
            try:
                sock, source = channel.next_of(listener)
            except OSError:
                return
            one, all_ = (network.id, source[0]), (network.id, "")
            full = len(self._streams) >= MAX_STREAMS or self._counts[all_] >= MAX_STREAMS_OF_NETWORK
            if full or self._counts[one] >= MAX_STREAMS_OF_ONE or self.client(network, source[0]) is None:
                sock.close()
                return
            sock.setblocking(False)
            conversation = Conversation(self.loop, sock, lambda data, reply: self._say(network, source, data, reply), self._gone)
            self._streams[conversation] = one
            self._counts.update((one, all_))

        return ready

    def _say(self, network: Network, source: tuple[str, int], data: bytes, reply: Callable[[bytes | None], None]) -> None:
        """Answer one query of a stream, now or later; with None, by ending the stream."""
        self.refresh()
        client = self.client(network, source[0])
        query = message.read(data)
        if client is None or not isinstance(query, Query):
            reply(query if isinstance(query, bytes) else None)
            return
        answer = self.zone.whole(client, data, query)
        if answer is not None:
            reply(answer)
            return
        key = (network.id, *source[:2], data[:2], query.name, query.kind, "stream")
        failure = message.failure(data, query, message.SERVFAIL)
        self._ask(client, key, network, source[0], data, lambda answer: reply(answer or failure), stream=True)

    def _gone(self, conversation: Conversation) -> None:
        one = self._streams.pop(conversation, None)
        if one is not None:
            self._counts.subtract((one, (one[0], "")))
            self._counts = +self._counts


def _send(send: Callable[[bytes, tuple[str, int]], object], answer: bytes, source: tuple[str, int]) -> None:
    """A datagram that can not be sent is one that got lost: its client asks again."""
    try:
        send(answer, source)
    except OSError:
        pass
