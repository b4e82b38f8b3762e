"""What the owner of an engine may set; the defaults are good for most. Read once by the daemon, passed on, never changed."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """`pool`: sandboxes that are made ahead. `spares`: machines that wait for the next `run --vm`, 0 or 1. `machine_cpus` and
    `machine_memory` (bytes): a machine's, where none are asked for; 0 processors are all that the host has. `log_size` and
    `log_files`: at which size a log is rotated, how many files are kept. `resolv_conf`: where the host's DNS servers are named.
    `default_bind`: the host's address for published ports that name none, empty for all of them."""

    debug: bool = False
    spares: int = 1
    pool: int = 6
    log_size: int = 10 * MIB
    log_files: int = 3
    machine_cpus: int = 1
    machine_memory: int = 256 * MIB
    shm_size: int = 64 * MIB
    stop_timeout: int = 10
    resolv_conf: str = "/etc/resolv.conf"
    default_bind: str = ""
