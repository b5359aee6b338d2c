"""Models × images × metrics, and what comes of them: models by name, measurements."""
