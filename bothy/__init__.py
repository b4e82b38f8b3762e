"""bothy: containers and virtual machines, one engine, two walls."""

__version__ = "0.1.0"
