"""What a step does: one function per fault, and a command as an operator gives it."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Mapping

from tests.lab.host import LabHost
from tests.lab.lab import Lab
from tests.lab.network import ROOT, LabFailed
from tests.lab.scenario import CLIENT, Fault, Step

COMMAND_TIMEOUT_S = 60.0


def do(lab: Lab, step: Step) -> str:
    """Do it now; one sentence for the timeline. LabFailed when it cannot be done."""
    if step.fault is None:
        return _command(lab, step)
    return _FAULTS[step.fault](lab, step)


def _hosts(lab: Lab, step: Step) -> list[LabHost]:
    """The hosts of the step that are up; the client runs none of what faults are about."""
    return [lab.hosts[name] for name in lab.select(step.host) if name != CLIENT and lab.hosts[name].is_up]


def _said(what: str, hosts: list[LabHost]) -> str:
    return f"{what}: {', '.join(host.name for host in hosts) or 'no host that is up'}"


def _on_each(what: str, action: Callable[[LabHost, Step], None]) -> Callable[[Lab, Step], str]:
    def act(lab: Lab, step: Step) -> str:
        hosts = _hosts(lab, step)
        for host in hosts:
            action(host, step)
        return _said(what, hosts)

    return act


def _kill_service(host: LabHost, _step: Step) -> None:
    if not host.is_witness:
        host.kill_service()


def _kill_agent(host: LabHost, step: Step) -> None:
    host.kill_unit("agent", stay_dead=step.stay == "dead")


def _kill_watchdog(host: LabHost, step: Step) -> None:
    host.kill_unit("watchdog", stay_dead=step.stay == "dead")


def _freeze_agent(host: LabHost, step: Step) -> None:
    host.freeze("agent", *(("watchdog",) if step.watchdog else ()))


def _freeze_watchdog(host: LabHost, _step: Step) -> None:
    host.freeze("watchdog")


def _host_down(host: LabHost, _step: Step) -> None:
    host.crash()


def _host_up(lab: Lab, step: Step) -> str:
    hosts = [lab.hosts[name] for name in lab.select(step.host) if name != CLIENT and not lab.hosts[name].is_up]
    for host in hosts:
        host.boot()
    return f"hosts up: {', '.join(host.name for host in hosts) or 'all are up'}"


def _partition(lab: Lab, step: Step) -> str:
    a = lab.select(step.a)
    b = [name for name in lab.select(step.b) if name not in a]
    lab.network.partition([name for name in a if _is_plugged(lab, name)], [name for name in b if _is_plugged(lab, name)])
    return f"cut: {', '.join(a)} from {', '.join(b)}"


def _is_plugged(lab: Lab, name: str) -> bool:
    return lab.network.hosts[name].is_up


def _consul_leader_kill(lab: Lab, _step: Step) -> str:
    name = lab.select("consul_leader")[0]
    if not lab.hosts[name].is_up:
        raise LabFailed(f"Consul's leader was on {name}, which is down")
    lab.hosts[name].stop_consul(signal.SIGKILL)
    return f"Consul's leader killed: {name}"


def _consul_down(lab: Lab, step: Step) -> str:
    hosts = [host for host in (_hosts(lab, step) if step.host else lab.hosts.values()) if host.is_up and not host.consul_is_down]
    for host in hosts:
        host.stop_consul()
    return _said("Consul stopped cleanly", hosts)


def _consul_up(lab: Lab, step: Step) -> str:
    hosts = [host for host in (_hosts(lab, step) if step.host else lab.hosts.values()) if host.is_up and host.consul_is_down]
    for host in hosts:
        host.start_consul()
    return _said("Consul started", hosts)


def _heal(lab: Lab, _step: Step) -> str:
    lab.network.heal()
    for host in lab.hosts.values():
        host.heal()
    return "healed"


_FAULTS: Mapping[Fault, Callable[[Lab, Step], str]] = {
    Fault.KILL_SERVICE: _on_each("service killed", _kill_service),
    Fault.KILL_AGENT: _on_each("agent killed", _kill_agent),
    Fault.KILL_WATCHDOG: _on_each("watchdog killed", _kill_watchdog),
    Fault.FREEZE_AGENT: _on_each("agent frozen", _freeze_agent),
    Fault.FREEZE_WATCHDOG: _on_each("watchdog frozen", _freeze_watchdog),
    Fault.HOST_DOWN: _on_each("host down", _host_down),
    Fault.HOST_UP: _host_up,
    Fault.PARTITION: _partition,
    Fault.CONSUL_LEADER_KILL: _consul_leader_kill,
    Fault.CONSUL_DOWN: _consul_down,
    Fault.CONSUL_UP: _consul_up,
    Fault.HEAL: _heal,
}


def _command(lab: Lab, step: Step) -> str:
    """`quorate WORDS` as an operator on a member that is up gives it; its exit code is part of the sentence."""
    assert step.command is not None
    host = next((host for host in lab.members() if host.is_up and (step.host is None or host.name in lab.select(step.host))), None)
    if host is None:
        raise LabFailed("no member is up on which a command could be given")
    environment = {
        "PYTHONPATH": str(ROOT),
        "QUORATE_CONFIG": str(host.config_file),
        "QUORATE_NODE": host.name,
        "QUORATE_TOKEN_FILE": str(lab.folder / "secrets" / "operator"),
    }
    settings = [f"{key}={value}" for key, value in environment.items()]
    words = shlex.split(step.command)
    done = host.host.run(["env", *settings, sys.executable, "-m", "agent", *words], COMMAND_TIMEOUT_S)
    last = (done.stdout + done.stderr).strip().splitlines()[-1:]
    return f"quorate {step.command} on {host.name}: exit {done.returncode} {' '.join(last)}"
