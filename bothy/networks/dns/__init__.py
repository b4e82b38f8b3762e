"""The embedded DNS server of an engine's networks: a small process of its own, and what the engine tells it by.

`message`, `zone`, `upstream`, `server` and `main` are the process, `table` and `listening` are bothyd's half.
"""

TITLE = "bothy-names"
FOLDER, SOCKET = "names", "names.sock"
"""In the run folder: the workloads' files, and where bothyd speaks to the process."""
