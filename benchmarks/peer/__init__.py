"""What most Python teams would write instead. It runs in an environment of its own and knows nothing of Accord."""
