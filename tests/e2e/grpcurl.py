"""Does what the grpcurl command lines of README.md ask, over server reflection as grpcurl itself does.

Only the options used there: `-plaintext`, `-H 'name: value'`, `-d JSON` or `-d @` (messages from standard input),
then the address and either `list` or `package.Service/Method`.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main() -> int:
    """Make the call, print each answer as JSON; 1 and the status on standard error if it fails."""
    arguments = _parse(sys.argv[1:])
    with grpc.insecure_channel(arguments.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        if arguments.symbol == "list":
            print("\n".join(database.get_services()))
            return 0
        try:
            for answer in _call(channel, DescriptorPool(database), arguments):
                print(json_format.MessageToJson(answer))
        except grpc.RpcError as error:
            print(f"ERROR:\n  Code: {error.code().name}\n  Message: {error.details()}", file=sys.stderr)
            return 1
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("grpcurl", allow_abbrev=False)
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data", default="{}")
    parser.add_argument("address")
    parser.add_argument("symbol")
    return parser.parse_args(argv)


def _call(channel: grpc.Channel, pool: DescriptorPool, arguments: argparse.Namespace) -> Iterator[Any]:
    service_name, method_name = arguments.symbol.split("/")
    method = pool.FindServiceByName(service_name).methods_by_name[method_name]
    request_type = message_factory.GetMessageClass(method.input_type)
    answer_type = message_factory.GetMessageClass(method.output_type)
    text = sys.stdin.read() if arguments.data == "@" else arguments.data
    requests = [json_format.ParseDict(message, request_type()) for message in _messages(text)]
    metadata = [tuple(part.strip() for part in header.split(":", 1)) for header in arguments.headers]
    kind = f"{_word(method.client_streaming)}_{_word(method.server_streaming)}"
    call = getattr(channel, kind)(
        f"/{arguments.symbol}",
        request_serializer=request_type.SerializeToString,
        response_deserializer=answer_type.FromString,
    )
    answer = call(iter(requests) if method.client_streaming else requests[0], metadata=metadata, timeout=120)
    yield from answer if method.server_streaming else [answer]


def _messages(text: str) -> Iterator[Any]:
    decoder, position = json.JSONDecoder(), 0
    while position < len(text):
        message, position = decoder.raw_decode(text, position)
        yield message
        while position < len(text) and text[position].isspace():
            position += 1


def _word(is_streaming: bool) -> str:
    return "stream" if is_streaming else "unary"


if __name__ == "__main__":
    sys.exit(main())
