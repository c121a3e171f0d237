"""Describes the HTTP interface of the contract in OpenAPI 3.1, and serves the description as pages."""
