"""The embedded DNS server of an engine's networks: a small process of its own, and what the engine tells it by."""
