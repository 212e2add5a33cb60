"""What the app and the terminal both show of one picture."""
