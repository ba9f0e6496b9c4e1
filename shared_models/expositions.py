"""Metrics of several worker processes on one page: each sample says whose it is, in the label ``worker``.

They are not added up: the counters of a worker that died begin at 0 again, which ``rate()`` understands of
each series, and of no sum.
"""

from __future__ import annotations

from collections.abc import Iterable


def joined(pages: Iterable[tuple[int, bytes]]) -> bytes:
    """One page of Prometheus' text format 0.0.4 from those of the workers with these numbers."""
    families: dict[bytes, tuple[list[bytes], list[bytes]]] = {}
    for number, page in pages:
        label = b'worker="%d"' % number
        heads: list[bytes] = []
        samples: list[bytes] = []
        for line in page.splitlines():
            if line.startswith(b"# HELP "):
                heads, samples = families.setdefault(line.split(b" ", 3)[2], ([], []))
                if not heads:
                    heads.append(line)
            elif line.startswith(b"#"):
                if len(heads) == 1:
                    heads.append(line)
            elif line:
                samples.append(_with_label(line, label))
    lines = [line for heads, samples in families.values() for line in (*heads, *samples)]
    return b"\n".join(lines) + b"\n" if lines else b""


def _with_label(line: bytes, label: bytes) -> bytes:
    """*line* is a sample: its name, its labels if it has any, its value."""
    brace, space = line.find(b"{"), line.find(b" ")
    if 0 <= brace < space:
        return line[: brace + 1] + label + b"," + line[brace + 1 :]
    return line[:space] + b"{" + label + b"}" + line[space:]
