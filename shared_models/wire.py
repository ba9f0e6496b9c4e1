"""JSON as Fn's servers read and write it.

They are written in Go, and clients rely on what its JSON package does: field names match without
regard to case, unknown fields are dropped, ``null`` means "left out", only the first document of a
body counts, numbers must fit the field's type, and bytes that are not UTF-8 become U+FFFD.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from shared_models.errors import InvalidJSON

T = TypeVar("T")

Uint64 = Annotated[int, msgspec.Meta(ge=0)]
Uint32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]

_encoder = msgspec.json.Encoder()
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])
_texts = msgspec.json.Decoder(dict[str, str | None])
_string_or_space = re.compile(rb'("(?:[^"\\]|\\.)*")|[ \t\r\n]+')


def encode(value: object) -> bytes:
    """JSON of builtins and structs, with the trailing newline that Fn writes."""
    return _encoder.encode(value) + b"\n"


def decode(body: bytes, type_: type[T]) -> T:
    """The first document of *body* as a struct; raises InvalidJSON with the field and the rule.

    A body of ``null`` gives the struct's defaults.
    """
    try:
        body.decode()
    except UnicodeDecodeError:
        body = body.decode("utf-8", "replace").encode()
    try:
        return _struct(_first_document(body), type_, "")
    except (msgspec.MsgspecError, ValueError) as exc:
        raise InvalidJSON(str(exc)) from None
    except RecursionError:
        raise InvalidJSON("nested too deeply") from None


def compact(raw: bytes) -> bytes:
    """JSON text without the space between its tokens."""
    return _string_or_space.sub(lambda match: match[1] or b"", raw)


def _first_document(body: bytes) -> bytes:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except msgspec.DecodeError:
        text = body.decode().lstrip(" \t\r\n")
        _, end = json.JSONDecoder().raw_decode(text)
        return text[:end].encode()
    return body


@functools.cache
def _fields(type_: Any) -> Mapping[str, tuple[str, Any]]:
    hints = get_type_hints(type_, include_extras=True)
    table = {}
    for field in msgspec.structs.fields(type_):
        table[field.encode_name.lower()] = (field.name, hints[field.name])
    return table


def _struct(raw: bytes, type_: type[T], where: str) -> T:
    if raw.strip() == b"null":
        return type_()
    table: Any = _fields
    fields, values = table(type_), {}
    for key, item in _object.decode(raw).items():
        found = fields.get(key.lower())
        if found is None or bytes(item) == b"null":
            continue
        name, hint = found
        values[name] = _value(bytes(item), hint, f"{where}{key}")
    return type_(**values)


def _value(raw: bytes, hint: Any, where: str) -> Any:
    hint = _without_none(hint)
    if _is_struct(hint):
        return _struct(raw, hint, f"{where}.")
    try:
        if get_origin(hint) is dict and get_args(hint) == (str, str):
            return {key: text or "" for key, text in _texts.decode(raw).items()}
        if get_origin(hint) is dict and get_args(hint)[1] is msgspec.Raw:
            return {key: msgspec.Raw(compact(bytes(item))) for key, item in _object.decode(raw).items()}
        if get_origin(hint) is list and _is_struct(inner := get_args(hint)[0]):
            return [_struct(bytes(item), inner, f"{where}[].") for item in _list.decode(raw)]
        return msgspec.json.decode(raw, type=hint)
    except msgspec.MsgspecError as exc:
        raise ValueError(f"{where}: {str(exc)[:1].lower()}{str(exc)[1:]}") from None


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _without_none(hint: Any) -> Any:
    """``X`` of ``X | None``: null is handled before a value is looked at."""
    args = get_args(hint)
    if type(None) in args:
        rest = [arg for arg in args if arg is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return hint
