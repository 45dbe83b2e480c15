"""The part of the stand-in server that takes artifacts: tables, weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ReceivedArtifact:
    """What the server knows of one version of an artifact.

    Attributes:
        name: Its collection's name.
        type: ``model``, ``run_table`` and the like.
        run: The run that logged it.
        aliases: ``latest``, ``best`` and the like.
        metadata: What was said about it.
        files: Contents by name, without the manifest.
        manifest: The manifest.
        is_committed: Whether it arrived whole.
    """

    name: str
    type: str
    run: str | None
    digest: str
    aliases: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    is_committed: bool = False


_MANIFEST = "wandb_manifest.json"


class Artifacts:
    """All artifacts of a server.

    Attributes:
        received: In the order in which they were created; the same content again, under the same name, is no other.
    """

    def __init__(self) -> None:
        self.received: list[ReceivedArtifact] = []
        self._clients: dict[str, int] = {}  # the SDK's own ids, by which a table in a row names its artifact

    def named(self, name: str) -> list[ReceivedArtifact]:
        """The versions of an artifact that arrived whole, the oldest first."""
        return [artifact for artifact in self.received if artifact.name == name and artifact.is_committed]

    def upload(self, number: int, name: str, content: bytes) -> None:
        """Take a file of an artifact, or its manifest."""
        if name == _MANIFEST:
            self.received[number].manifest = json.loads(content)
        else:
            self.received[number].files[name] = content

    # The operations of GraphQL that the SDK sends: ids are indices of `received`.

    def graphql_ArtifactType(self, asked: dict[str, Any], _: str) -> dict[str, Any]:
        found = self.named(asked["name"].partition(":")[0])
        artifact = {"artifactType": {"name": found[-1].type}} if found else None
        return {"project": {"artifact": artifact}}

    def graphql_CreateArtifact(self, asked: dict[str, Any], _: str) -> dict[str, Any]:
        content = asked["input"]
        name, digest = content["artifactCollectionName"], content["digest"]
        numbers = [number for number, other in enumerate(self.received) if other.name == name]
        number = next((number for number in numbers if self.received[number].digest == digest), len(self.received))
        if number == len(self.received):
            artifact = ReceivedArtifact(name, content["artifactTypeName"], content.get("runName"), digest)
            artifact.metadata = json.loads(content.get("metadata") or "{}")
            self.received.append(artifact)
        artifact = self.received[number]
        aliases = [alias["alias"] for alias in content.get("aliases") or ()]
        for other in (self.received[of] for of in numbers):  # an alias is on one version alone
            other.aliases = [alias for alias in other.aliases if alias not in aliases]
        artifact.aliases += [alias for alias in aliases if alias not in artifact.aliases]
        self._clients[content["clientID"]] = number
        latest = {"id": str(numbers[-1])} if numbers else None
        state = "COMMITTED" if artifact.is_committed else "PENDING"
        answer = {"id": str(number), "state": state, "artifactSequence": {"latestArtifact": latest}}
        return {"createArtifact": {"artifact": answer}}

    def graphql_CreateArtifactManifest(self, asked: dict[str, Any], host: str) -> dict[str, Any]:
        number = asked["artifactID"]
        file = {"id": f"manifest-{number}", "uploadUrl": _url(host, number, _MANIFEST), "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": f"manifest-{number}", "file": file}}}

    def graphql_CreateArtifactFiles(self, asked: dict[str, Any], host: str) -> dict[str, Any]:
        nodes: list[dict[str, Any]] = [
            {
                "storagePath": f"{file['artifactID']}/{file['name']}",
                "uploadUrl": _url(host, file["artifactID"], file["name"]),
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            for file in asked["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def graphql_CommitArtifact(self, asked: dict[str, Any], _: str) -> dict[str, Any]:
        artifact = self.received[int(asked["artifactID"])]
        missing = set(artifact.manifest["contents"]) - set(artifact.files)
        assert not missing, f"{artifact.name}: {missing} did not arrive"
        artifact.is_committed = True
        return {"commitArtifact": {"artifact": {"id": asked["artifactID"], "digest": artifact.digest}}}

    def graphql_ClientIDMapping(self, asked: dict[str, Any], _: str) -> dict[str, Any]:
        number = self._clients.get(asked["clientID"])
        return {"clientIDMapping": None if number is None else {"serverID": str(number)}}

    def graphql_UseArtifact(self, asked: dict[str, Any], _: str) -> dict[str, Any]:
        return {"useArtifact": {"artifact": {"id": asked["input"]["artifactID"]}}}


def _url(host: str, number: str, name: str) -> str:
    return f"{host}/artifact/{number}/{name}"
