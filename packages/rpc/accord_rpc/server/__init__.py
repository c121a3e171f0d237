"""Listens on one port and turns connections into HTTP exchanges. Holds every limit of a connection. Knows no protocol above HTTP."""
