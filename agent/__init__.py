"""quorate's agent: observe, share, decide, act, report. See agent/README.md."""

__version__ = "0.1.0"

PROTOCOL_VERSION = 1
"""Version of the lease record and of the watchdog's messages. A record of a higher version is never taken over."""
