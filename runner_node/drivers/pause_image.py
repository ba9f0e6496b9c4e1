"""The image of the containers that hold network namespaces: one program of 200 bytes.

The node makes it itself, so that no registry is needed for it. The program blocks SIGTERM and SIGINT and
waits for one of them, since the first process of a container does not die of a signal that it does not
expect; then it ends with 0. It needs no library, no memory beyond a page of stack, and no CPU time.
"""

from __future__ import annotations

import io
import struct
import tarfile

from docker.errors import APIError, ImageNotFound

from runner_node.drivers.engine import Engine, words
from shared_models import errors

REPOSITORY, TAG = "fn-hybrid/pause", "1"
"""Its name in the engine. The tag changes with the program."""
PROGRAM = "pause"
_ADDRESS = 0x400000
_HEADERS = 64 + 56
"""Bytes before the code: the header of the file, and that of its only segment."""

_X86_64 = bytes.fromhex(
    "68 02 40 00 00"  # push 0x4002         the set: SIGINT is bit 1, SIGTERM bit 14
    "48 89 e6"  # mov rsi, rsp         ... at this address
    "31 ff"  # xor edi, edi         SIG_BLOCK
    "31 d2"  # xor edx, edx         the old set is not wanted
    "6a 08 41 5a"  # push 8; pop r10      a set has 8 bytes
    "b8 0e 00 00 00"  # mov eax, 14          rt_sigprocmask
    "0f 05"  # syscall
    "48 89 e7"  # wait: mov rdi, rsp   the set
    "31 f6"  # xor esi, esi         who sent it is not wanted
    "31 d2"  # xor edx, edx         no time limit
    "6a 08 41 5a"  # push 8; pop r10
    "b8 80 00 00 00"  # mov eax, 128         rt_sigtimedwait
    "0f 05"  # syscall
    "85 c0"  # test eax, eax
    "7e ea"  # jle wait             interrupted: a container that was frozen, a debugger
    "31 ff"  # xor edi, edi
    "b8 e7 00 00 00"  # mov eax, 231         exit_group(0)
    "0f 05"  # syscall
)
_AARCH64 = struct.pack(
    "<20I",
    0xD2880049,  # mov x9, #0x4002      the set, as above
    0xF81F0FE9,  # str x9, [sp, #-16]!
    0xD2800000,  # mov x0, #0           SIG_BLOCK
    0x910003E1,  # mov x1, sp
    0xD2800002,  # mov x2, #0
    0xD2800103,  # mov x3, #8
    0xD28010E8,  # mov x8, #135         rt_sigprocmask
    0xD4000001,  # svc #0
    0x910003E0,  # wait: mov x0, sp
    0xD2800001,  # mov x1, #0
    0xD2800002,  # mov x2, #0
    0xD2800103,  # mov x3, #8
    0xD2801128,  # mov x8, #137         rt_sigtimedwait
    0xD4000001,  # svc #0
    0x7100001F,  # cmp w0, #0
    0x54FFFF2D,  # b.le wait
    0xD2800000,  # mov x0, #0
    0xD2800BC8,  # mov x8, #94          exit_group(0)
    0xD4000001,  # svc #0
    0xD4200000,  # brk #0               never reached
)
_CODES = {"amd64": (62, _X86_64), "arm64": (183, _AARCH64)}
"""By the engine's name of the architecture: its number in ELF (e_machine), and the code."""


def program(architecture: str) -> bytes:
    """A static ELF file for *architecture*, in the engine's words; raises LookupError when it is unknown.

    Layout (elf(5)): the file is mapped whole, readable and executable, and begun behind its headers.
    """
    machine, code = _CODES[architecture]
    size = _HEADERS + len(code)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little endian, version 1
    # type EXEC, machine, version, entry, headers of segments at, of sections at, flags, sizes and counts
    head = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, _ADDRESS + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    # type LOAD, flags R+X, from offset 0 to the address, bytes in the file and in memory, alignment
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _ADDRESS, _ADDRESS, size, size, 0x10000)
    return ident + head + segment + code


def archive(architecture: str) -> bytes:
    """The root file system, as a tar; raises LookupError as ``program`` does."""
    content = program(architecture)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo(PROGRAM)
        member.size, member.mode = len(content), 0o755
        tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


async def make(engine: Engine) -> str:
    """The name of the image, which *engine* has then; raises EngineUnavailable.

    Also when the engine runs on an architecture that has no program here.
    """
    name = f"{REPOSITORY}:{TAG}"
    try:
        await engine.call(lambda client: client.inspect_image(name))  # type: ignore[no-untyped-call]
    except ImageNotFound:
        pass
    except APIError as exc:
        raise errors.EngineUnavailable(detail=words(exc)) from exc
    else:
        return name
    try:
        version = await engine.call(lambda client: client.version(api_version=False))
        content = archive(version["Arch"])
        changes = [f'ENTRYPOINT ["/{PROGRAM}"]']
        await engine.call(
            lambda client: client.import_image_from_data(
                content, repository=REPOSITORY, tag=TAG, changes=changes
            )
        )
    except LookupError as exc:
        raise errors.EngineUnavailable(detail=f"no pause program for an engine on {exc}") from exc
    except APIError as exc:
        raise errors.EngineUnavailable(detail=words(exc)) from exc
    return name
