"""Calls from threads."""
