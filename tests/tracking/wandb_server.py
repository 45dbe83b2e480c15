"""As much of a W&B server as the SDK needs to log, resume and sync runs online: what arrives is there to be asked."""

from __future__ import annotations

import gzip
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from tests.tracking.wandb_artifacts import Artifacts
from tests.tracking.wandb_sweeps import Sweeps

ENTITY = "lab"
KEY = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class ReceivedRun:
    """What the server knows of a run.

    Attributes:
        facts: Project, group, tags, job type, notes, displayed name, configuration.
        history: The logged rows.
        lines: The console's lines.
        summary: The summary.
        exit_code: The last one; None while it runs.
        preempting: Whether it said that it is being preempted.
        files: The files that were uploaded, by name.
        alerts: What people were sent a message about: title, text, severity.
        is_stopped: Whether somebody, or a sweep's early termination, has stopped it: W&B and the agent tell it.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    preempting: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    alerts: list[tuple[str, str, str]] = field(default_factory=list)
    is_stopped: bool = False

    @property
    def is_preempted(self) -> bool:
        """Whether it shall go on elsewhere."""
        return self.preempting and bool(self.exit_code) and not self.is_stopped

    def steps(self, name: str = "g/total") -> list[int]:
        """The training steps of the rows that have a metric, in the server's order."""
        return [row["step"] for row in self.history if name in row]


class WandbServer:
    """A server that runs inside ``with``.

    Args:
        host: The address that it listens on; loopback is not that of other network namespaces.

    Attributes:
        runs: What arrived, by id.
        artifacts: The artifacts that arrived.
        sweeps: The sweeps that were created.
        handler: Answers its requests.
        status: The answer to every request; other than 200, it fails.
        unanswered: Operations of GraphQL that it does not know.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.runs: dict[str, ReceivedRun] = {}
        self.artifacts, self.sweeps = Artifacts(), Sweeps(self.runs)
        self.status = 200
        self.unanswered: set[str] = set()
        self.lock = threading.RLock()
        self.handler: Any = type("Handler", (_Handler,), {"wandb": self})
        self._http = _Server((host, 0), self.handler)

    def __enter__(self) -> WandbServer:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """What a shell exports for it."""
        return {"WANDB_BASE_URL": f"http://{self.host}:{self._http.server_port}", "WANDB_API_KEY": KEY}

    @property
    def only_run(self) -> ReceivedRun:
        """The one run that there must be."""
        assert len(self.runs) == 1, sorted(self.runs)
        return next(iter(self.runs.values()))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that is killed resets its connections: nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wandb: WandbServer

    def log_message(self, *_: object) -> None:
        """Keep the test's output free of requests."""

    def _answer(self) -> None:
        body = self._body()
        with self.wandb.lock:
            status, content = self.wandb.status, {"error": "as the test wants"}
            if status == 200:
                status, content = self._route(body)
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = _answer

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _route(self, body: bytes) -> tuple[int, dict[str, Any]]:
        path = self.path.partition("?")[0]
        if path == "/graphql":
            request = json.loads(body)
            found = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            name = request.get("operationName") or (found[1] if found else "?")
            for part in (self, self.wandb.artifacts, self.wandb.sweeps):
                if answer := getattr(part, f"graphql_{name}", None):
                    host = f"http://{self.headers['Host']}"
                    return 200, {"data": answer(request.get("variables") or {}, host)}
            self.wandb.unanswered.add(name)
            return 200, {"data": None, "errors": [{"message": f"no answer to {name}"}]}
        if found := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", path):
            self._stream(self._run(found[1]), json.loads(body or b"{}"))
            return 200, {"stopped": self._run(found[1]).is_stopped}
        if found := re.fullmatch(r"/upload/([^/]+)/(.+)", path):
            self._run(found[1]).files[unquote(found[2])] = body
            return 200, {}
        if found := re.fullmatch(r"/artifact/(\d+)/(.+)", path):
            self.wandb.artifacts.upload(int(found[1]), unquote(found[2]), body)
            return 200, {}
        return 404, {}

    def _run(self, run_id: str) -> ReceivedRun:
        return self.wandb.runs.setdefault(run_id, ReceivedRun())

    def _stream(self, run: ReceivedRun, content: dict[str, Any]) -> None:
        for name, part in (content.get("files") or {}).items():
            lines, offset = part.get("content") or [], int(part.get("offset") or 0)
            if name == "wandb-history.jsonl":
                run.history[offset:] = map(json.loads, lines)
            elif name == "output.log":
                run.lines[offset:] = lines
            elif name == "wandb-summary.json" and lines:
                run.summary = json.loads(lines[-1])
        run.preempting |= bool(content.get("preempting"))
        run.exit_code = content.get("exitcode", run.exit_code)

    # The operations of GraphQL that the SDK sends.

    def graphql_ServerFeaturesQuery(self, _: dict[str, Any], _host: str) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def graphql_Viewer(self, _: dict[str, Any], _host: str) -> dict[str, Any]:
        return {"viewer": {"id": "U", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}}

    def graphql_OrganizationCoreWeaveOrganizationID(self, _: dict[str, Any], _host: str) -> dict[str, Any]:
        return {"entity": None}

    def graphql_RunStoppedStatus(self, asked: dict[str, Any], _host: str) -> dict[str, Any]:
        return {"project": {"run": {"stopped": self._run(asked["run"]).is_stopped}}}

    def graphql_RunResumeStatus(self, asked: dict[str, Any], _host: str) -> dict[str, Any]:
        run, bucket = self.wandb.runs.get(asked["name"]), None
        if run:
            bucket = {
                "id": asked["name"],
                "name": asked["name"],
                "summaryMetrics": json.dumps(run.summary),
                "logLineCount": len(run.lines),
                "historyLineCount": len(run.history),
                "eventsLineCount": 0,
                "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
                "eventsTail": "[]",
                "config": json.dumps(run.facts.get("config") or {}),
                "wandbConfig": '{"t": 1}',
            }
        return {"model": {**_project(asked.get("project")), "bucket": bucket}}

    def graphql_UpsertBucket(self, asked: dict[str, Any], _host: str) -> dict[str, Any]:
        run_id = asked.get("name") or asked["id"]
        is_new, run = run_id not in self.wandb.runs, self._run(run_id)
        run.facts |= {key: value for key, value in asked.items() if value is not None}
        if asked.get("config"):
            run.facts["config"] = json.loads(asked["config"])
        bucket = {
            "id": run_id,
            "name": run_id,
            "displayName": run.facts.get("displayName") or run_id,
            "config": json.dumps(run.facts.get("config") or {}),
            "sweepName": run.facts.get("sweep"),
            "project": _project(run.facts.get("project"), run.facts.get("entity")),
            "historyLineCount": len(run.history),
        }
        return {"upsertBucket": {"inserted": is_new, "bucket": bucket}}

    def graphql_NotifyScriptableRunAlert(self, asked: dict[str, Any], _host: str) -> dict[str, Any]:
        self._run(asked["runName"]).alerts.append((asked["title"], asked["text"], asked["severity"]))
        return {"notifyScriptableRunAlert": {"success": True}}

    def graphql_MarkRunFilesUploaded(self, _: dict[str, Any], _host: str) -> dict[str, Any]:
        return {"markRunFilesUploaded": {"success": True}}

    def graphql_CreateRunFiles(self, asked: dict[str, Any], host: str) -> dict[str, Any]:
        base = f"{host}/upload/{asked['run']}"
        files = [{"name": name, "uploadUrl": f"{base}/{name}"} for name in asked["files"]]
        return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}


def _project(name: str | None, entity: str | None = None) -> dict[str, Any]:
    name, entity = name or "uncategorized", entity or ENTITY
    return {"id": name, "name": name, "entity": {"id": entity, "name": entity}}
