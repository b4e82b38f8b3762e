"""Plans of both walls with what has to be found out for them: layers and a seccomp program; a template and a disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bothy.containers import seccomp
from bothy.containers.model import ContainerPlan
from bothy.engine import security, spec
from bothy.engine.hall import Hall
from bothy.engine.heavy import heavy
from bothy.engine.model import Wall, Workload
from bothy.engine.workloads import Live
from bothy.errors import BothyError
from bothy.images.model import Image
from bothy.machines import templates
from bothy.machines.model import MachinePlan

Progress = Callable[[str], None]


async def container_plan(hall: Hall, record: Workload, place: spec.Place) -> ContainerPlan:
    """The plan of a container. Cheap: what it needs is there since the image is, and the seccomp program after the first time.

    Raises NotFound when the image is gone, Invalid for a bad seccomp profile.
    """
    place = replace(place, lowers=hall.images.layers(hall.images.resolve(record.image)), images=mounted_images(hall, record))
    plan = spec.container_plan(record, hall.paths, place, hall.settings.shm_size)
    return replace(plan, seccomp=await seccomp_program(hall, record, plan))


def mounted_images(hall: Hall, record: Workload) -> dict[str, list[Path]]:
    """The layers of the images that it has mounted, by their ids. Raises NotFound when one is gone."""
    wanted = {mount.source for mount in record.mounts if mount.type == "image"}
    return {image: list(hall.images.layers(hall.images.resolve(image))) for image in wanted}


async def seccomp_program(hall: Hall, record: Workload, plan: ContainerPlan) -> str:
    """The path of the compiled program, empty for none. Compiled in a thread the first time (some 20 ms)."""
    host = record.host_config
    asked = security.options(host.security_opt, privileged=host.privileged).seccomp
    if asked == "unconfined":
        return ""
    sets = plan.spec.process.capabilities
    key = (asked, tuple(sets.bounding) if sets else ())
    known = hall.seccomp.get(key)
    if known is None or not os.path.exists(known):
        profile = None if asked == "default" else seccomp.load_profile(asked)
        known = hall.seccomp[key] = await heavy(seccomp.compile, profile, key[1], hall.paths.cache)
    return known


async def machine_plan(hall: Hall, record: Workload, place: spec.Place, files: dict[str, str]) -> MachinePlan:
    """The plan of a machine. Seconds, if template or disk have to be made first; see `prepare`."""
    cpus, memory = machine_size(hall, record)
    place = replace(place, images=mounted_images(hall, record))
    template, disk = await heavy(ready, hall, hall.images.resolve(record.image), cpus, memory, _silent)
    return spec.machine_plan(
        record, hall.paths, place, hall.settings.shm_size, files, template=template, disk=disk, cpus=cpus, memory=memory
    )


def machine_size(hall: Hall, record: Workload) -> tuple[int, int]:
    """Virtual processors, and bytes of memory in one of the sizes that templates have."""
    cpus = spec.vcpus(record.host_config, hall.settings.machine_cpus)
    return cpus, templates.memory_class(spec.machine_memory(record.host_config, hall.settings.machine_memory))


def ready(hall: Hall, image: Image, cpus: int, memory: int, progress: Progress) -> tuple[Path, Path]:
    """Template and image disk, made if they are missing. Blocks."""
    template = hall.templates.ensure(cpus, memory, progress)
    return template, hall.images.machine_disk(image, progress)


async def prepare(hall: Hall, live: Live, progress: Progress) -> None:
    """Make now what the first start of such a machine would have to make, telling how it goes; nothing for a container.

    A failure is one of the start that would have followed: with auto-remove the workload is gone then.
    """
    if live.record.wall is Wall.CONTAINER:
        return
    loop = asyncio.get_running_loop()

    def tell(words: str) -> None:
        loop.call_soon_threadsafe(progress, words)

    cpus, memory = machine_size(hall, live.record)
    try:
        await heavy(ready, hall, hall.images.resolve(live.record.image), cpus, memory, tell)
    except (BothyError, OSError):
        if live.record.host_config.auto_remove:
            await hall.auto_remove(hall, live)
        raise


def _silent(_: str) -> None:
    """Progress that nobody looks at."""
