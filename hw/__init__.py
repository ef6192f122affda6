"""Device models, testable without a CPU."""
