"""REST: routes, requests and responses in JSON, errors and conditional requests."""
