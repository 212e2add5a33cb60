"""Images and labels: what they are and where they come from."""
