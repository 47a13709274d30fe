"""Sockets that listen."""

import socket


def listen(host: str, port: int) -> socket.socket:
    """A listener for ``uvicorn.Server.serve(sockets=[…])``; port 0 takes a free one.

    Without TCP_NODELAY, which accepted sockets inherit, every small answer would wait 40 ms for the client's ACK.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, proto, _, address = found[0]
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(1024)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
