"""Writes features into this repository, and fields into features. Production does not need it."""
