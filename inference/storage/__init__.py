"""Where files are written whole, finished parts are kept, and a user's files are read."""
