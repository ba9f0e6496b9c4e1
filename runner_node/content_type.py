"""The content type of an answer that names none, judged by its first bytes.

The rules of the MIME Sniffing Standard as Go's HTTP server applies them, since that is what clients of
Fn have always been given. Source: mimesniff.spec.whatwg.org sections 6 and 7; examples recorded from Fn
in tests/wire/scenarios/vectors/sniff.json.
"""

from __future__ import annotations

LOOK_AT = 512
_SPACE = b"\t\n\x0c\r "
_TEXT = "text/plain; charset=utf-8"
_BINARY = "application/octet-stream"
_BINARY_BYTES = frozenset([*range(0x09), 0x0B, *range(0x0E, 0x1B), *range(0x1C, 0x20)])
_HTML = (
    b"<!DOCTYPE HTML", b"<HTML", b"<HEAD", b"<SCRIPT", b"<IFRAME", b"<H1", b"<DIV", b"<FONT", b"<TABLE",
    b"<A", b"<STYLE", b"<TITLE", b"<B", b"<BODY", b"<BR", b"<P", b"<!--",
)  # fmt: skip
_PREFIXES = (
    (b"%PDF-", "application/pdf"),
    (b"%!PS-Adobe-", "application/postscript"),
    (b"\xfe\xff", "text/plain; charset=utf-16be"),
    (b"\xff\xfe", "text/plain; charset=utf-16le"),
    (b"\xef\xbb\xbf", _TEXT),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"\x00\x00\x02\x00", "image/x-icon"),
    (b"BM", "image/bmp"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"ID3", "audio/mpeg"),
    (b"OggS\x00", "application/ogg"),
    (b"MThd\x00\x00\x00\x06", "audio/midi"),
    (b"\x00\x01\x00\x00", "font/ttf"),
    (b"OTTO", "font/otf"),
    (b"ttcf", "font/collection"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
    (b"\x1f\x8b\x08", "application/x-gzip"),
    (b"PK\x03\x04", "application/zip"),
    (b"Rar!\x1a\x07\x00", "application/x-rar-compressed"),
    (b"Rar!\x1a\x07\x01\x00", "application/x-rar-compressed"),
    (b"\x00asm", "application/wasm"),
    (b"\x1a\x45\xdf\xa3", "video/webm"),
)
_RIFF = {b"WEBPVP": "image/webp", b"WAVE": "audio/wave", b"AVI ": "video/avi"}
_FORM = {b"AIFF": "audio/aiff"}


def detect(body: bytes) -> str:
    """A content type for *body*; never empty."""
    head = body[:LOOK_AT]
    text = head.lstrip(_SPACE)
    if _is_html(text):
        return "text/html; charset=utf-8"
    if text.startswith(b"<?xml"):
        return "text/xml; charset=utf-8"
    for prefix, content_type in _PREFIXES:
        if head.startswith(prefix):
            return content_type
    for container, kinds in ((b"RIFF", _RIFF), (b"FORM", _FORM)):
        if head.startswith(container):
            for kind, content_type in kinds.items():
                if head[8:].startswith(kind):
                    return content_type
    if _is_mp4(head):
        return "video/mp4"
    if head[34:36] == b"LP":
        return "application/vnd.ms-fontobject"
    return _BINARY if not _BINARY_BYTES.isdisjoint(text) else _TEXT


def _is_html(text: bytes) -> bool:
    upper = text[:20].upper()
    return any(upper.startswith(tag) and text[len(tag) : len(tag) + 1] in (b" ", b">") for tag in _HTML)


def _is_mp4(head: bytes) -> bool:
    size = int.from_bytes(head[:4], "big")
    if len(head) < 12 or size > len(head) or size % 4 or head[4:8] != b"ftyp":
        return False
    brands = [head[at : at + 3] for at in range(8, size, 4) if at != 12]
    return b"mp4" in brands
