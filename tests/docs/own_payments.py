"""The reader's own payments service: the demo's, under the names that README and docs use.

The pages import `payments_pb2` and `payments_pb2_grpc`, as `protoc` calls the code of a
`payments.proto`, with the package `payments.v1`. Here they are made from the demo's descriptors.
Run as a program, this module is the demo's server, which answers to those names too.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import builder

from fusewire.demo import server as demo_server
from fusewire.demo.payments.v1 import payments_pb2 as demo

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

DEMO = "fusewire.demo.payments.v1"
OWN = "payments.v1"
CHARGE = f"/{OWN}.Payments/Charge"


def offer_own_stubs() -> None:
    """Let `payments_pb2` and `payments_pb2_grpc` be imported."""
    if "payments_pb2" in sys.modules:
        return
    file = _own_file()
    messages = ModuleType("payments_pb2")
    builder.BuildMessageAndEnumDescriptors(file, vars(messages))
    builder.BuildTopDescriptorsAndMessages(file, "payments_pb2", vars(messages))
    stubs: Any = ModuleType("payments_pb2_grpc")
    stubs.PaymentsStub = type("PaymentsStub", (), {"__init__": _make_methods})
    stubs.PaymentsServicer = type("PaymentsServicer", (), {})
    stubs.add_PaymentsServicer_to_server = _add_servicer
    sys.modules |= {"payments_pb2": messages, "payments_pb2_grpc": stubs}


def _own_file() -> FileDescriptor:
    file = descriptor_pb2.FileDescriptorProto()
    demo.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = "payments.proto", OWN
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(f".{DEMO}.", f".{OWN}.")
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(f".{DEMO}.", f".{OWN}.")
        method.output_type = method.output_type.replace(f".{DEMO}.", f".{OWN}.")
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindFileByName(file.name)


def _make_methods(stub: Any, channel: Any) -> None:
    service = descriptor_pool.Default().FindServiceByName(f"{OWN}.Payments")
    for method in service.methods:
        setattr(stub, method.name, _method(channel, method))


def _method(channel: Any, method: MethodDescriptor) -> Any:
    make = channel.unary_stream if method.server_streaming else channel.unary_unary
    reply = message_factory.GetMessageClass(method.output_type)
    return make(
        f"/{OWN}.Payments/{method.name}",
        request_serializer=message_factory.GetMessageClass(method.input_type).SerializeToString,
        response_deserializer=reply.FromString,
    )


def _add_servicer(servicer: Any, server: grpc.Server) -> None:
    service = descriptor_pool.Default().FindServiceByName(f"{OWN}.Payments")
    handlers: dict[str, Any] = {
        method.name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, method.name),
            message_factory.GetMessageClass(method.input_type).FromString,
            message_factory.GetMessageClass(method.output_type).SerializeToString,
        )
        for method in service.methods
        if hasattr(servicer, method.name)
    }
    generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
    server.add_generic_rpc_handlers([generic])


class _UnderDemoNames(grpc.ServerInterceptor):
    """Has all that comes after it see the demo's names: other interceptors, and the handlers."""

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        method = handler_call_details.method.replace(f"/{OWN}.", f"/{DEMO}.")
        return continuation(handler_call_details._replace(method=method))


def main() -> None:
    program: Any = demo_server
    make_server = program.make_server
    program.make_server = functools.partial(make_server, interceptors=[_UnderDemoNames()])
    program.main()


if __name__ == "__main__":
    main()
