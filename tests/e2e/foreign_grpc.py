"""gRPC by a stack that is not ours: `foreign_grpc.py serve ADDRESS`, and `foreign_grpc.py call ADDRESS`, which tells what each kind of
call comes to. Messages are plain bytes, so that no compiler of protocols is needed."""

import os
import signal
import sys
import threading
from concurrent import futures

import grpc


def same(message):
    return message


def unary(message, context):
    metadata = dict(context.invocation_metadata())
    if "x-echo" in metadata:
        context.send_initial_metadata((("x-echo", metadata["x-echo"]),))
    if "x-trail-bin" in metadata:
        context.set_trailing_metadata((("x-trail-bin", metadata["x-trail-bin"]),))
    if message == b"fail":
        context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
        context.set_details("not so: ä %")
        return b""
    if message == b"sleep":
        threading.Event().wait(5)
    return message


def download(message, context):
    for size in range(int(message)):
        yield b"x" * (size * 1000)


def upload(messages, context):
    return str(sum(len(message) for message in messages)).encode()


def both(messages, context):
    for message in messages:
        yield message * 2


# grpc.health.v1.HealthCheckResponse with status = SERVING.
def check(message, context):
    return b"\x08\x01"


METHODS = {
    "/test.Test/Unary": grpc.unary_unary_rpc_method_handler(unary, same, same),
    "/test.Test/Download": grpc.unary_stream_rpc_method_handler(download, same, same),
    "/test.Test/Upload": grpc.stream_unary_rpc_method_handler(upload, same, same),
    "/test.Test/Both": grpc.stream_stream_rpc_method_handler(both, same, same),
    "/grpc.health.v1.Health/Check": grpc.unary_unary_rpc_method_handler(check, same, same),
}


class Methods(grpc.GenericRpcHandler):
    def service(self, details):
        return METHODS.get(details.method)


def serve(address):
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((Methods(),))
    server.add_insecure_port(address)
    server.start()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    print("serving", flush=True)
    ended.wait()
    server.stop(10).wait()
    os._exit(0)


def failure(call, told=lambda error: f"{error.code()} {error.details()}"):
    try:
        return f"no failure: {call()}"
    except grpc.RpcError as error:
        return told(error)


def call(address):
    channel = grpc.insecure_channel(address)
    one = channel.unary_unary("/test.Test/Unary")
    metadata = (("x-echo", "1"), ("x-trail-bin", b"\0\xff"))
    answer, told = one.with_call(b"hello", metadata=metadata, timeout=10)
    print("unary:", answer, dict(told.initial_metadata()), dict(told.trailing_metadata()), told.code())
    print("large:", len(one(b"z" * 3_000_000, timeout=10)))
    print("many at once:", sorted({call.result() for call in [one.future(b"%d" % (n % 7), timeout=10) for n in range(300)]}))
    print("error:", failure(lambda: one(b"fail", timeout=10)))
    print("unknown method:", failure(lambda: channel.unary_unary("/test.Test/None")(b"", timeout=10)))
    # Client, proxy and server notice at the same moment, in words of their own.
    print("deadline:", failure(lambda: one(b"sleep", timeout=0.5), lambda error: error.code()))
    print("download:", [len(message) for message in channel.unary_stream("/test.Test/Download")(b"30", timeout=10)])
    print("upload:", channel.stream_unary("/test.Test/Upload")(iter([b"a" * 100_000] * 20), timeout=10))
    both_ways = channel.stream_stream("/test.Test/Both")
    print("both:", [len(message) for message in both_ways(iter([b"b" * n * 100 for n in range(20)]), timeout=10)])
    # Each message only after the answer to the one before.
    turn, answers = threading.Semaphore(1), []

    def messages():
        for number in range(5):
            turn.acquire()
            yield b"%d" % number

    for answer in both_ways(messages(), timeout=10):
        answers.append(answer)
        turn.release()
    print("in turns:", answers)
    call = both_ways(iter(lambda: threading.Event().wait(0.05) or b"x", None), timeout=10)
    print("cancelled:", next(call), call.cancel(), failure(lambda: next(call)))


{"serve": serve, "call": call}[sys.argv[1]](sys.argv[2])
