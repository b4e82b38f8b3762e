"""Which module holds which verb, which words mean the same, how help groups them: plain data, nothing is imported before use."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bothy.cli.flags import Command

VERBS = {
    "run": "run", "create": "run",
    "start": "lifecycle", "stop": "lifecycle", "restart": "lifecycle", "kill": "lifecycle", "rm": "lifecycle", "wait": "lifecycle",
    "pause": "lifecycle", "unpause": "lifecycle", "rename": "lifecycle", "update": "update", "container prune": "lifecycle",
    "ps": "ps", "exec": "execute", "attach": "execute",
    "logs": "observe", "top": "observe", "port": "observe", "stats": "observe",
    "inspect": "inspect", "image inspect": "inspect", "container inspect": "inspect", "volume inspect": "inspect",
    "network inspect": "inspect",
    "images": "images", "rmi": "images", "tag": "images", "image history": "images", "image prune": "images",
    "cp": "cp", "diff": "changes", "commit": "changes",
    "import": "archives", "load": "archives", "save": "archives", "export": "archives", "image bootstrap": "archives",
    "volume create": "volumes", "volume ls": "volumes", "volume rm": "volumes", "volume prune": "volumes",
    "volume cp": "volumecp", "volume clone": "snapshots", "volume rename": "snapshots", "volume resize": "snapshots",
    "volume snapshot create": "snapshots", "volume snapshot ls": "snapshots", "volume snapshot rm": "snapshots",
    "volume snapshot restore": "snapshots",
    "secret create": "secrets", "secret ls": "secrets", "secret inspect": "secrets", "secret rm": "secrets",
    "network ls": "networks", "network create": "networks", "network rm": "networks", "network prune": "networks",
    "network connect": "networks", "network disconnect": "networks", "network doctor": "exposure",
    "port add": "exposure", "port rm": "exposure", "port ls": "exposure",
    "machine template ls": "machine", "machine template rm": "machine", "machine template prune": "machine",
    "system df": "system", "system prune": "system", "system shutdown": "shutdown",
    "info": "system", "version": "system", "events": "events",
    "completion": "completion",
}  # fmt: skip

_BOTH = (
    "run", "create", "start", "stop", "restart", "kill", "rm", "wait", "pause", "unpause", "rename", "update", "exec", "attach",
    "logs", "top", "port", "stats", "cp", "diff", "commit", "export",
)  # fmt: skip
ALIASES = {
    **{f"container {verb}": verb for verb in _BOTH},
    "container ls": "ps", "container list": "ps", "container ps": "ps", "container remove": "rm",
    "image ls": "images", "image list": "images", "image rm": "rmi", "image remove": "rmi", "image tag": "tag",
    "history": "image history",
    "image import": "import", "image load": "load", "image save": "save", "bootstrap": "image bootstrap",
    "volume snapshot": "volume snapshot create", "volume snapshot list": "volume snapshot ls",
    "volume snapshot remove": "volume snapshot rm",
    "secret list": "secret ls", "secret remove": "secret rm",
    "volume list": "volume ls", "volume remove": "volume rm", "network list": "network ls", "network remove": "network rm",
    "port list": "port ls", "port remove": "port rm",
    "machine template list": "machine template ls", "machine template remove": "machine template rm",
    "system info": "info", "system events": "events",
}  # fmt: skip

GROUPS = {
    "container": "Containers and machines",
    "image": "Images on this machine",
    "secret": "Secrets: files that only workloads see which are given them",
    "volume": "Volumes: folders that outlive the workloads that mount them",
    "network": "Networks",
    "machine": "What virtual machines are made of",
    "machine template": "Templates: machines booted once, of which every `run --vm` is a clone",
    "system": "The engine",
}

SECTIONS = (
    ("Run", ("run", "create", "start", "exec", "attach", "cp")),
    ("Look", ("ps", "logs", "inspect", "top", "stats", "port", "diff", "wait", "events")),
    ("Change", ("stop", "restart", "kill", "pause", "unpause", "rename", "update", "rm")),
    ("Images", ("images", "image bootstrap", "import", "load", "save", "commit", "export", "tag", "rmi", "image history")),
    ("Engine", ("info", "version", "system df", "system prune", "system shutdown", "completion")),
    ("Groups", ("container", "image", "volume", "network", "secret", "machine template", "system")),
)


def canonical(words: list[str]) -> tuple[str, str, int]:
    """(verb, the words it was called by, how many they are) at the beginning of `words`; the verb is empty if there is none."""
    for count in (3, 2, 1):
        if count <= len(words):
            shown = " ".join(words[:count])
            verb = ALIASES.get(shown, shown)
            if verb in VERBS:
                return verb, shown, count
    return "", "", 0


def summaries() -> dict[str, str]:
    """One line for every verb, alias and group; imports every module, for help and completion only."""
    found = dict(GROUPS)
    for verb in VERBS:
        found[verb] = command(verb).summary.partition(". ")[0]
    for alias, verb in ALIASES.items():
        found[alias] = found[verb]
    return found


def command(verb: str) -> Command:
    """The Command of a canonical verb."""
    module = __import__(f"bothy.cli.{VERBS[verb]}", fromlist=("COMMANDS",))
    found: Command = module.COMMANDS[verb]
    return found
