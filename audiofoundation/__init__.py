"""Self-hosted audio foundation models. Importing the package does nothing."""
