"""caisse: a self-hosted payments gateway for small merchants."""

__version__ = "0.1.0"
