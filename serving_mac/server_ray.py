"""
`mac-serve --ray`: the same app as a deployment of Ray Serve, with replicas and Ray's own batching.

    mac-serve --ray auto --replicas 4
    serve run serving_mac.server_ray:app model=user/name replicas=4       # and in a RayService of KubeRay
"""

import logging
import os
import signal
import threading
from collections.abc import Sequence
from typing import Any


os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before the import: nothing is sent to anyone

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import HTTPOptions

from .server_app import CaptionService, make_app
from .server_captions import Answer, Job
from .server_loading import load_for_service
from .server_options import ServerOptions


APP = "mac"


def cost_of_batch(jobs: Sequence[Job]) -> int:
    """Count the windows that a batch reads; one recording alone always has room, however long it is."""
    return 1 if len(jobs) == 1 else sum(job.cost for job in jobs)


class Replica:
    """
    One model with its app; Ray Serve makes as many as were asked for.

    Args:
        model: Folder or Hub id.
        loading: Further arguments of `load_captioner`.
        options: Limits and habits, each replica's own.
    """

    def __init__(self, model: str, loading: dict[str, Any], options: ServerOptions):
        self.service = CaptionService(load_for_service(model, loading), options)
        self.service.submit = self.submit
        self.batch.set_max_batch_size(options.max_batch)
        self.batch.set_batch_wait_timeout_s(options.batch_wait_ms / 1000)

    async def submit(self, job: Job) -> Answer:
        """Wait for the answer to a job; if the waiting task is cancelled, the model stops writing it."""
        try:
            answer = await self.batch(job)
        finally:
            job.gone.set()
        if isinstance(answer, Exception):
            raise answer
        return answer

    @serve.batch(batch_size_fn=cost_of_batch)
    async def batch(self, jobs: list[Job]) -> list[Answer | Exception]:
        """Caption the jobs that came together."""
        return await self.service.batcher.caption_batch(jobs)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_app(self.service)


def deploy(model: str, loading: dict[str, Any], options: ServerOptions, replicas: int, gpus: bool) -> Any:
    """Make the application of Ray Serve."""
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=APP,
        num_replicas=replicas,
        ray_actor_options={"num_cpus": 1, "num_gpus": 1 if gpus else 0},
        max_ongoing_requests=2 * options.max_requests,  # more than there is room for: the app itself says no
        graceful_shutdown_timeout_s=options.timeout_seconds,
    )
    return deployment.bind(model, loading, options)


def app(arguments: dict[str, str]) -> Any:
    """Make the application from the options of `mac-serve`, by their names without the dashes in front."""
    from .server_cli import build_parser, loading_options, read_options

    options = build_parser().parse_args([f"--{name}={value}" for name, value in arguments.items()])
    return deploy(
        options.model, loading_options(options), read_options(options), options.replicas, has_gpus(options.device)
    )


def has_gpus(device: str | None) -> bool:
    """Tell whether each replica is to have a GPU: where the cluster has some, unless the user names the CPU."""
    return not (device or "").startswith("cpu") and ray.cluster_resources().get("GPU", 0) > 0


def serve_on_ray(
    address: str | None,
    place: tuple[str, int],
    model: str,
    loading: dict[str, Any],
    options: ServerOptions,
    replicas: int,
) -> None:
    """
    Serve on a Ray cluster until a signal comes, and shut down after what was begun.

    Args:
        address: Address of the cluster, or "auto"; None starts Ray on this machine.
        place: Host and port where every node with replicas listens.
        model: Folder or Hub id.
        loading: Further arguments of `load_captioner`.
        options: Limits and habits.
        replicas: Number of models.

    Raises:
        ValueError: There is no cluster at this address, or the replicas cannot start.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    settings: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": 2**28}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **settings)
    except Exception as error:  # Ray's errors of a missing cluster have no common class
        raise ValueError(f"no Ray cluster at {address or 'this machine'} ({error})") from error
    try:
        serve.start(http_options=HTTPOptions(host=place[0], port=place[1]))
        try:
            serve.run(deploy(model, loading, options, replicas, has_gpus(loading["device"])), name=APP)
        except RuntimeError as error:
            raise ValueError(f"the replicas cannot start ({error})") from error
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):  # only now, since Ray has set handlers of its own
            signal.signal(number, lambda *_: stop.set())
        where = f"{options.name} at http://{place[0]}:{place[1]}"
        print(f"mac-serve: {where}, models: {replicas} (Ctrl-C ends it)", flush=True)
        stop.wait()
    finally:
        serve.shutdown()
        ray.shutdown()
