"""Requests whose framing is wrong, or read differently by different servers; as bytes for a raw socket."""

from collections.abc import Callable

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
"""What must never be answered: it is a part of another request, or comes after one that was refused."""


def post(*headers: bytes, body: bytes = b"", target: bytes = b"/echo", version: bytes = b"1.1") -> bytes:
    """Return a POST with Host and *headers* before *body*."""
    lines = [b"POST %s HTTP/%s" % (target, version), b"Host: a", *headers]
    return b"\r\n".join([*lines, b"", body])


def get(line: bytes = b"GET / HTTP/1.1", *headers: bytes) -> bytes:
    """Return a request without a body."""
    return b"\r\n".join([line, *(headers or (b"Host: a",)), b"", b""])


CHUNKED = b"Transfer-Encoding: chunked"


def chunked(body: bytes, *headers: bytes) -> bytes:
    """Return a POST whose body is chunked, as *body* has it."""
    return post(CHUNKED, *headers, body=body)


PROBES: dict[str, bytes] = {
    # Two lengths: which one counts, servers disagree about.
    "CL and TE": post(b"Content-Length: 6", CHUNKED, body=b"0\r\n\r\nG" + SMUGGLED),
    "TE and CL": post(CHUNKED, b"Content-Length: 4", body=b"5c\r\n" + SMUGGLED + b"0\r\n\r\n"),
    "two CL that differ": post(b"Content-Length: 0", b"Content-Length: 36", body=SMUGGLED),
    "two CL that agree": post(b"Content-Length: 0", b"Content-Length: 0", body=SMUGGLED),
    "a list of CL": post(b"Content-Length: 0, 36", body=SMUGGLED),
    "a list of equal CL": post(b"Content-Length: 0, 0", body=SMUGGLED),
    "two TE": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "TE identity": post(b"Transfer-Encoding: identity", b"Content-Length: 0", body=SMUGGLED),
    "TE identity alone": post(b"Transfer-Encoding: identity", body=SMUGGLED),
    "TE chunked, identity": post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + SMUGGLED),
    "TE identity, chunked": post(b"Transfer-Encoding: identity, chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "TE gzip, chunked": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "TE xchunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + SMUGGLED),
    "TE chunkedx": post(b"Transfer-Encoding: chunkedx", body=b"0\r\n\r\n" + SMUGGLED),
    "TE in quotes": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n" + SMUGGLED),
    "TE with a parameter": post(b"Transfer-Encoding: chunked;q=1", body=b"0\r\n\r\n" + SMUGGLED),
    "TE empty": post(b"Transfer-Encoding:", body=b"0\r\n\r\n" + SMUGGLED),
    "TE after a vertical tab": post(b"Transfer-Encoding: \x0bchunked", b"Content-Length: 36", body=SMUGGLED),
    "TE with a space before the colon": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "TE with a tab before the colon": post(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "TE with a NUL in its name": post(b"Transfer-Encoding\0: chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "TE on a folded line": post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "TE in HTTP/1.0": post(CHUNKED, body=b"0\r\n\r\n" + SMUGGLED, version=b"1.0"),
    # Lengths that are none.
    "CL negative": post(b"Content-Length: -1", body=SMUGGLED),
    "CL signed": post(b"Content-Length: +0", body=SMUGGLED),
    "CL hexadecimal": post(b"Content-Length: 0x24", body=SMUGGLED),
    "CL empty": post(b"Content-Length:", body=SMUGGLED),
    "CL a word": post(b"Content-Length: zero", body=SMUGGLED),
    "CL a fraction": post(b"Content-Length: 0.0", body=SMUGGLED),
    "CL with a space inside": post(b"Content-Length: 3 6", body=SMUGGLED),
    "CL with an underscore": post(b"Content-Length: 1_0", body=SMUGGLED),
    "CL beyond 64 bits": post(b"Content-Length: 18446744073709551617", body=SMUGGLED),
    "CL of forty digits": post(b"Content-Length: " + b"1" * 40, body=SMUGGLED),
    "CL with a space before the colon": post(b"Content-Length : 0", body=SMUGGLED),
    # Chunks.
    "chunk size negative": chunked(b"-1\r\n" + SMUGGLED),
    "chunk size with 0x": chunked(b"0x0\r\n\r\n" + SMUGGLED),
    "chunk size empty": chunked(b"\r\n\r\n" + SMUGGLED),
    "chunk size not hexadecimal": chunked(b"z\r\n\r\n" + SMUGGLED),
    "chunk size with an underscore": chunked(b"1_0\r\nA\r\n0\r\n\r\n" + SMUGGLED),
    "chunk size beyond 64 bits": chunked(b"FFFFFFFFFFFFFFFFF\r\nA\r\n0\r\n\r\n" + SMUGGLED),
    "chunk size then space": chunked(b"0 \r\n\r\n" + SMUGGLED),
    "chunk size after space": chunked(b" 0\r\n\r\n" + SMUGGLED),
    "chunk longer than its size": chunked(b"1\r\nAB\r\n0\r\n\r\n" + SMUGGLED),
    "chunk ends with LF alone": chunked(b"1\r\nA\n0\r\n\r\n" + SMUGGLED),
    "chunk size ends with LF alone": chunked(b"1\nA\r\n0\r\n\r\n" + SMUGGLED),
    "chunk size ends with CR alone": chunked(b"1\rA\r\n0\r\n\r\n" + SMUGGLED),
    "last chunk ends with LF alone": chunked(b"0\n\n" + SMUGGLED),
    "chunk extension of 64 KiB": chunked(b"1;" + b"a" * 65_536 + b"\r\nA\r\n0\r\n\r\n" + SMUGGLED),
    "chunk extension with a bare LF": chunked(b"1;a\nb\r\nA\r\n0\r\n\r\n" + SMUGGLED),
    "chunk extensions on many chunks": chunked((b"1;" + b"a" * 200 + b"\r\nA\r\n") * 400 + b"0\r\n\r\n" + SMUGGLED),
    "many trailers": chunked(b"0\r\n" + b"X: y\r\n" * 200 + b"\r\n" + SMUGGLED),
    "trailer folded": chunked(b"0\r\nX: y\r\n z\r\n\r\n" + SMUGGLED),
    "trailer without a colon": chunked(b"0\r\nX\r\n\r\n" + SMUGGLED),
    # Lines.
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n" + SMUGGLED,
    "bare LF after a header": b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n" + SMUGGLED,
    "bare CR in a header": get(b"GET / HTTP/1.1", b"Host: a", b"X: y\rZ: w") + SMUGGLED,
    "folded header": get(b"GET / HTTP/1.1", b"Host: a", b"X: y", b" z") + SMUGGLED,
    "folded first header": get(b"GET / HTTP/1.1", b" Host: a") + SMUGGLED,
    "NUL in a value": get(b"GET / HTTP/1.1", b"Host: a", b"X: y\0z") + SMUGGLED,
    "NUL in a name": get(b"GET / HTTP/1.1", b"Host: a", b"X\0: y") + SMUGGLED,
    "control character in a value": get(b"GET / HTTP/1.1", b"Host: a", b"X: \x01") + SMUGGLED,
    "delete character in a value": get(b"GET / HTTP/1.1", b"Host: a", b"X: \x7f") + SMUGGLED,
    "header without a name": get(b"GET / HTTP/1.1", b"Host: a", b": y") + SMUGGLED,
    "header without a colon": get(b"GET / HTTP/1.1", b"Host: a", b"X") + SMUGGLED,
    "space in a header's name": get(b"GET / HTTP/1.1", b"Host: a", b"X Y: z") + SMUGGLED,
    "header in parentheses": get(b"GET / HTTP/1.1", b"Host: a", b"(X): y") + SMUGGLED,
    # Who is asked, and what for.
    "no Host": get(b"GET / HTTP/1.1", b"X: y") + SMUGGLED,
    "two Hosts": get(b"GET / HTTP/1.1", b"Host: a", b"Host: b") + SMUGGLED,
    "Host with a space": get(b"GET / HTTP/1.1", b"Host: a b") + SMUGGLED,
    "Host with a path": get(b"GET / HTTP/1.1", b"Host: a/../b") + SMUGGLED,
    "Host with somebody": get(b"GET / HTTP/1.1", b"Host: x@a") + SMUGGLED,
    "absolute target": get(b"GET http://b/ HTTP/1.1") + SMUGGLED,
    "absolute target of another scheme": get(b"GET file:///etc/passwd HTTP/1.1") + SMUGGLED,
    "target with two slashes": get(b"GET //b/ HTTP/1.1") + SMUGGLED,
    "target without a slash": get(b"GET a HTTP/1.1") + SMUGGLED,
    "target with a NUL": get(b"GET /\0 HTTP/1.1") + SMUGGLED,
    "target with a tab": get(b"GET /a\tb HTTP/1.1") + SMUGGLED,
    "target beyond ASCII": get(b"GET /\xc3\xa9 HTTP/1.1") + SMUGGLED,
    "target with a fragment": get(b"GET /#a HTTP/1.1") + SMUGGLED,
    "asterisk": get(b"OPTIONS * HTTP/1.1") + SMUGGLED,
    "CONNECT": get(b"CONNECT b:443 HTTP/1.1") + SMUGGLED,
    "unknown method": get(b"PRAY / HTTP/1.1") + SMUGGLED,
    "method in lower case": get(b"get / HTTP/1.1") + SMUGGLED,
    "HTTP/0.9": b"GET /\r\n" + SMUGGLED,
    "HTTP/1.2": get(b"GET / HTTP/1.2") + SMUGGLED,
    "HTTP/2.0": get(b"GET / HTTP/2.0") + SMUGGLED,
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/3.14": get(b"GET / HTTP/3.14") + SMUGGLED,
    "another protocol's name": get(b"GET / HTTPS/1.1") + SMUGGLED,
    "space after the version": get(b"GET / HTTP/1.1 ") + SMUGGLED,
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(64),
    "noise": bytes(range(256)),
    # Sizes.
    "target of 9 KiB": get(b"GET /" + b"a" * 9216 + b" HTTP/1.1") + SMUGGLED,
    "target of 2 MB without an end": b"GET /" + b"a" * 2_000_000,
    "header of 40 KiB": get(b"GET / HTTP/1.1", b"Host: a", b"X: " + b"y" * 40_000) + SMUGGLED,
    "header of 2 MB without an end": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 2_000_000,
    "header's name of 2 MB": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"y" * 2_000_000,
    "200 headers": get(b"GET / HTTP/1.1", b"Host: a", *[b"X: y"] * 200) + SMUGGLED,
    "headers without an end": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100_000,
    "unknown expectation": post(b"Expect: a miracle", b"Content-Length: 0") + SMUGGLED,
}

WHOLE: dict[str, Callable[[], bytes]] = {
    "GET": get,
    "GET of HTTP/1.0": lambda: get(b"GET / HTTP/1.0"),
    "POST": lambda: post(b"Content-Length: 2", body=b"hi"),
    "POST in chunks": lambda: chunked(b"1\r\nh\r\n1\r\ni\r\n0\r\n\r\n"),
    "POST in chunks with a short extension": lambda: chunked(b"2;a=b\r\nhi\r\n0\r\n\r\n"),
    "POST with a trailer": lambda: chunked(b"2\r\nhi\r\n0\r\nX-Late: 1\r\n\r\n"),
    "GET that would like to upgrade": lambda: get(
        b"GET / HTTP/1.1", b"Host: a", b"Connection: Upgrade", b"Upgrade: h2c"
    ),
    "GET after empty lines": lambda: b"\r\n\r\n" + get(),
}
"""Requests that are answered: what refuses everything would pass all probes."""
