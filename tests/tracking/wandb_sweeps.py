"""The part of the stand-in server that runs sweeps: what ``wandb sweep`` and ``wandb agent`` ask."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from tests.tracking.wandb_server import ReceivedRun

_MANY = 100  # trials of a method that would go on for ever, where no run_cap says less


@dataclass
class Sweep:
    """A sweep.

    Attributes:
        name: Its id.
        config: Its YAML file's content.
        waiting: Trials that no agent has yet: the parameters' values.
        trials: Those that an agent got, by the run's id.
        commands: What the agents were told, in order: (``run``, ``resume`` or ``stop``, the run's id).
        state: RUNNING, FINISHED, CANCELED.
    """

    name: str
    config: dict[str, Any]
    waiting: list[dict[str, Any]]
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    commands: list[tuple[str, str]] = field(default_factory=list)
    state: str = "RUNNING"


class Sweeps:
    """All sweeps of a server.

    Trials of ``method: grid`` are those of the grid; other methods draw from the parameters' ranges, always the same.

    Args:
        runs: The server's runs, by id: a trial that was preempted is handed out again.

    Attributes:
        sweeps: By id.
        agents: The sweep of each agent, by the agent's id.
    """

    def __init__(self, runs: Mapping[str, ReceivedRun]) -> None:
        self.runs = runs
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, Sweep] = {}

    # The operations of GraphQL that the SDK sends.

    def graphql_UpsertSweep(self, asked: dict[str, Any], _: str) -> dict[str, Any]:
        if asked.get("id"):
            sweep = self.sweeps[asked["id"]]
            sweep.state = asked.get("state") or sweep.state
        else:
            config = yaml.safe_load(asked["config"])
            sweep = Sweep(f"sweep{len(self.sweeps)}", config, list(_trials(config)))
            self.sweeps[sweep.name] = sweep
        entity = {"id": asked.get("entityName") or "lab", "name": asked.get("entityName") or "lab"}
        name = asked.get("projectName") or "uncategorized"
        project = {"id": name, "name": name, "entity": entity}
        return {"upsertSweep": {"sweep": {"name": sweep.name, "project": project}, "configValidationWarnings": []}}

    def graphql_SweepWithRuns(self, asked: dict[str, Any], _: str) -> dict[str, Any]:
        sweep = self.sweeps.get(asked["sweep"])
        if sweep is None:
            return {"project": None}
        content = {"id": sweep.name, "name": sweep.name, "method": sweep.config.get("method"), "state": sweep.state}
        return {"project": {"sweep": {**content, "config": yaml.safe_dump(sweep.config), "runs": {"edges": []}}}}

    def graphql_GetSweepState(self, asked: dict[str, Any], _: str) -> dict[str, Any]:
        return {"project": {"sweep": {"state": self.sweeps[asked["sweep"]].state}}}

    def graphql_CreateAgent(self, asked: dict[str, Any], _: str) -> dict[str, Any]:
        name = f"agent{len(self.agents)}"
        self.agents[name] = self.sweeps[asked["sweep"]]
        return {"createAgent": {"agent": {"id": name}}}

    def graphql_Heartbeat(self, asked: dict[str, Any], _: str) -> dict[str, Any]:
        sweep, going_on = self.agents[asked["id"]], json.loads(asked.get("runState") or "{}")
        commands = list(self._commands(sweep, going_on))
        sweep.commands += [(command["type"], command["run_id"]) for command in commands if "run_id" in command]
        return {"agentHeartbeat": {"agent": {"id": asked["id"]}, "commands": json.dumps(commands)}}

    def _commands(self, sweep: Sweep, going_on: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What an agent shall do next.

        Args:
            sweep: Its sweep.
            going_on: The runs that it has, by id.
        """
        for run_id in going_on:
            if run_id in self.runs and self.runs[run_id].is_stopped:
                yield {"id": run_id, "type": "stop", "run_id": run_id}
        if going_on:
            return
        preempted = [run_id for run_id in sweep.trials if run_id in self.runs and self.runs[run_id].is_preempted]
        if preempted:
            run_id, kind = preempted[0], "resume"
            self.runs[run_id].preempting, self.runs[run_id].exit_code = False, None
        elif sweep.waiting and sweep.state == "RUNNING":
            run_id, kind = f"{sweep.name}trial{len(sweep.trials)}", "run"
            sweep.trials[run_id] = sweep.waiting.pop(0)
        else:
            sweep.state = "FINISHED" if sweep.state == "RUNNING" else sweep.state
            yield {"id": "exit", "type": "exit", "args": {}}
            return
        values = {key: {"value": value} for key, value in sweep.trials[run_id].items()}
        names = {"id": run_id, "run_id": run_id, "run_name": run_id, "program": sweep.config.get("program")}
        yield {"type": kind, "args": values, "logs": [], **names}


def _trials(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The trials of a sweep's configuration."""
    parameters: dict[str, dict[str, Any]] = config.get("parameters") or {}
    if config.get("method") == "grid":
        choices = [parameter.get("values") or [parameter["value"]] for parameter in parameters.values()]
        for values in itertools.product(*choices):
            yield dict(zip(parameters, values, strict=True))
        return
    draw = random.Random(0)
    for _ in range(config.get("run_cap") or _MANY):
        yield {name: _drawn(parameter, draw) for name, parameter in parameters.items()}


def _drawn(parameter: dict[str, Any], draw: random.Random) -> Any:
    if "values" in parameter:
        return draw.choice(parameter["values"])
    if "value" in parameter:
        return parameter["value"]
    low, high = parameter["min"], parameter["max"]
    if "log" in str(parameter.get("distribution")):
        return low * (high / low) ** draw.random()
    return draw.randint(low, high) if isinstance(low, int) and isinstance(high, int) else draw.uniform(low, high)
