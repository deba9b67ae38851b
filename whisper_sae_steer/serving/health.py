"""For load balancers and orchestrators, open to whoever reaches the port; metrics and schema with the key."""

from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from .fleet import Fleet
from .security import require_key

router = APIRouter()


@router.get("/health")
def health(request: Request) -> dict[str, Any]:
    """Alive; ``ready`` is whether a request now would be taken."""
    fleet: Fleet = request.app.state.fleet
    return {
        "status": "ok",
        "ready": fleet.has_room,
        "model": fleet.default.name,
        "queued": fleet.queued,
        "models": {
            member.name: {"loaded": member.engine is not None, "queued": member.queued}
            for member in fleet.members
        },
    }


@router.get("/health/ready")
def ready(request: Request, response: Response) -> dict[str, bool]:
    """503 while no further request would be taken."""
    fleet: Fleet = request.app.state.fleet
    response.status_code = 200 if fleet.has_room else 503
    return {"ready": fleet.has_room}


@router.get("/metrics", dependencies=[Depends(require_key)])
def metrics(request: Request) -> Response:
    """In Prometheus's text format."""
    fleet: Fleet = request.app.state.fleet
    return Response(generate_latest(fleet.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/openapi.json", dependencies=[Depends(require_key)], include_in_schema=False)
def schema(request: Request) -> dict[str, Any]:
    """The routes, in OpenAPI's form."""
    app: FastAPI = request.app
    return app.openapi()
