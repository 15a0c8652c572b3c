"""The page of live cameras: pictures, figures and budget in a browser, with an HTTP API.

`serve` runs it beside whatever keeps a `Board`; `app` is the application alone, for another server.
Needs the extra `live`.
"""

try:
    import fastapi as _fastapi  # noqa: F401
    import prometheus_client as _prometheus_client  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
except ImportError as error:
    raise ImportError(
        "eventful.live.page needs FastAPI, uvicorn and prometheus-client; "
        "pip install 'eventful-transformers[live]'"
    ) from error

from eventful.live.page.addresses import ALLOWED
from eventful.live.page.application import app
from eventful.live.page.files import dashboard
from eventful.live.page.limits import Limits
from eventful.live.page.server import Page, serve

__all__ = ["ALLOWED", "Limits", "Page", "app", "dashboard", "serve"]
