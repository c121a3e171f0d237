"""The peer: what most Python teams would write instead. It runs in its own environment, without Accord."""
