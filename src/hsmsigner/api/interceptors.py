"""What happens around every RPC: authenticate, serve, translate the error, log. In this order, in one place."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from hsmsigner.api.authn import Authenticator, Caller
from hsmsigner.api.status import fit, grpc_code, to_status
from hsmsigner.errors import Reason, SignerError

_log = logging.getLogger("hsmsigner.rpc")
_OURS = "/hsmsigner.v1."
_DETAILS = "grpc-status-details-bin"

Context = grpc.aio.ServicerContext[Any, Any]


class Edge(grpc.aio.ServerInterceptor):
    """Wraps each method once; health and reflection need a certificate (the handshake saw to that) but no principal."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Find the wrapped handler of a method; made at its first call."""
        method = str(handler_call_details.method)
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None or not method.startswith(_OURS):
                return handler
            wrapped = self._wrapped[method] = self._wrap(handler, method)
        return wrapped

    def _wrap(self, handler: Any, method: str) -> grpc.RpcMethodHandler[Any, Any]:
        if handler.stream_stream:
            make, serve = (
                grpc.stream_stream_rpc_method_handler,
                self._serve_stream(handler.stream_stream, method, _all_readable),
            )
        elif handler.unary_stream:
            make, serve = (
                grpc.unary_stream_rpc_method_handler,
                self._serve_stream(handler.unary_stream, method, _readable),
            )
        else:
            make, serve = grpc.unary_unary_rpc_method_handler, self._serve_unary(handler.unary_unary, method)
        return make(
            serve,
            request_deserializer=_tolerant(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _serve_unary(self, serve: Callable[[Any, Context], Awaitable[Any]], method: str) -> Any:
        async def wrapped(request: Any, context: Context) -> Any:
            started, caller = time.monotonic(), None
            try:
                caller = self._authenticator.enter(context.auth_context())
                answer = await serve(_readable(request), context)
            except Exception as error:  # noqa: BLE001 - the one place: what is not typed leaves as INTERNAL with an id
                await _abort(context, _typed(error), method, caller, started)
            _log_call(method, caller, started, "OK")
            return answer

        return wrapped

    def _serve_stream(
        self, serve: Callable[[Any, Context], AsyncIterator[Any]], method: str, read: Callable[[Any], Any]
    ) -> Any:
        # `asked` is one request, or an iterator of them, as the method has it; `read` sees that it could be read.
        async def wrapped(asked: Any, context: Context) -> AsyncIterator[Any]:
            started, caller = time.monotonic(), None
            try:
                caller = self._authenticator.enter(context.auth_context())
                async for answer in serve(read(asked), context):
                    yield answer
            except Exception as error:  # noqa: BLE001 - as above
                await _abort(context, _typed(error), method, caller, started)
            _log_call(method, caller, started, "OK")

        return wrapped


_UNREADABLE = object()


def _tolerant(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Left alone, gRPC answers bytes that are no message with UNKNOWN and the text of the exception."""

    def wrapped(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _UNREADABLE

    return wrapped


def _readable(request: Any) -> Any:
    if request is _UNREADABLE:
        raise SignerError(Reason.INVALID_FIELD, "the request cannot be read as the message this method takes")
    return request


async def _all_readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _readable(request)


def _typed(error: Exception) -> SignerError:
    if isinstance(error, SignerError):
        return error
    incident = uuid.uuid4().hex
    _log.error("internal error %s", incident, exc_info=error, extra={"incident": incident})
    return SignerError(
        Reason.INTERNAL, f"internal error; the operators find it as {incident}", metadata={"incident": incident}
    )


async def _abort(context: Context, error: SignerError, method: str, caller: Caller | None, started: float) -> NoReturn:
    _log_call(method, caller, started, error.reason.value)
    details = to_status(error).SerializeToString()
    await context.abort(grpc_code(error.reason), fit(error.message), ((_DETAILS, details),))
    raise AssertionError("abort does not return")


def _log_call(method: str, caller: Caller | None, started: float, outcome: str) -> None:
    # Level first: at thousands of calls a second the dictionary alone would be felt.
    level = logging.DEBUG if outcome == "OK" else logging.INFO
    if _log.isEnabledFor(level):
        extra = {
            "method": method.rpartition("/")[2],
            "principal": str(caller.principal) if caller else "",
            "outcome": outcome,
            "duration_ms": round((time.monotonic() - started) * 1000, 2),
        }
        _log.log(level, "rpc", extra=extra)
