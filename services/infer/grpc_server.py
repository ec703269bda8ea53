"""The gRPC server: our services, health and reflection."""

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from audiofoundation.api.v1 import inference_pb2, inference_pb2_grpc, models_pb2, models_pb2_grpc
from audiofoundation.errors import InvalidRequest
from audiofoundation.settings import Settings
from audiofoundation.transport.auth import Authenticator
from audiofoundation.transport.grpc import GuardInterceptor
from services.infer.grpc_servicer import InferenceServicer, ModelServicer
from services.infer.wiring import InferContainer

_MAX_MESSAGE_BYTES = 16 << 20
_SERVICES = tuple(
    service.full_name
    for file in (inference_pb2.DESCRIPTOR, models_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
)


class GrpcServer:
    """A started server and where it listens.

    Attributes:
        port: the port, also when any free one was asked for.
    """

    def __init__(self, server: grpc.aio.Server, port: int, status: health.aio.HealthServicer) -> None:
        self._server, self.port, self._health = server, port, status

    async def stop(self, grace: float | None) -> None:
        """Say that no work should come, refuse new calls, let the others finish for `grace` seconds."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)


async def start_grpc_server(container: InferContainer, settings: Settings) -> GrpcServer:
    """Start serving on `settings.serving.grpc_port` of the same host as HTTP; 0 takes a free port.

    Raises:
        InvalidRequest: the port is taken.
    """
    guard = GuardInterceptor(Authenticator(settings.serving))
    options = [("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(interceptors=[guard], options=options)
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(InferenceServicer(container), server)
    models_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(container), server)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    address = f"{settings.serving.host}:{settings.serving.grpc_port}"
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise InvalidRequest(f"cannot listen for gRPC on {address}: {error}; choose another port") from error
    await server.start()
    for name in ("", *_SERVICES):
        await status.set(name, health_pb2.HealthCheckResponse.SERVING)
    return GrpcServer(server, port, status)
