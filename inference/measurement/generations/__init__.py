"""What checkpoints wrote, as text on disk: read, turned into features, and measured."""
